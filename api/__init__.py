"""The thin shim: HTTP in; a committed row and a bell out. Never imports the worker."""
