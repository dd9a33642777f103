"""The evidence on one page."""
