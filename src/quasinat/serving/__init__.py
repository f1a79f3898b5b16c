"""The HTTP service and its demo page."""
