"""Programs for those who work on wintersweet; never published."""
