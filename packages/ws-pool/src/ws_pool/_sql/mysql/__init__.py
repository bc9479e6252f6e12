"""The MySQL dialect: drivers, result reader, errors."""
