"""postqueue-api: manage a Postfix mail queue over HTTP, without a shell."""

__version__ = "0.1.0"
