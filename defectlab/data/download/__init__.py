"""Download and unpacking of public datasets on request."""
