"""Mixed bits."""
