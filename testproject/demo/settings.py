"""The settings of the test project, with users told to the server for its access log."""

from testproject.settings import *  # noqa: F403
from testproject.settings import MIDDLEWARE

MIDDLEWARE = [*MIDDLEWARE, "testproject.demo.users.tell_user"]
