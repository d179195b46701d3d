"""What every gunicorn of the test project has in common; the rest is on its command line."""

control_socket_disable = True  # it would be in the home directory, one for all of them
