"""What runs on a host, as one standard-library file, and the client's side of its channel."""
