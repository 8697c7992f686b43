"""Rows of a task file: read with their lines, their fields by role, the questions they ask."""
