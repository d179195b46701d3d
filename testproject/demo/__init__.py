"""`make demo`: the test project under real traffic, with every promise checked while it runs."""
