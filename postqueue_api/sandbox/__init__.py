"""A throw-away Postfix with real mail in it, for trying and for testing.

Start reading in box.py. sites.py says where mail goes and why it stays; mail.py what is sent; sink.py answers
at the other end; configuration.py writes Postfix's files; place.py claims a directory; guard.py cleans up after a
sudden death.
"""

from postqueue_api.sandbox.box import Delivery, Sandbox
from postqueue_api.sandbox.place import fresh_directory

__all__ = ["Delivery", "Sandbox", "fresh_directory"]
