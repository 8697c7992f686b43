"""HTTP for any API: strict bodies, fields by their names, errors, streams of events."""
