"""What stands in front of everything: Host and Origin rules, body limit, security headers, and the API key."""

from .gate import BODY_LIMIT, Guard
from .hosts import local_hosts
from .login import LOGIN_PATH

__all__ = ["BODY_LIMIT", "LOGIN_PATH", "Guard", "local_hosts"]
