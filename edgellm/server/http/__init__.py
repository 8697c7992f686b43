"""What any API over HTTP needs: strict bodies, fields by their names, errors, streams of events."""
