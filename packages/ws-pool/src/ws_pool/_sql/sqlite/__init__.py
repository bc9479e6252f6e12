"""The SQLite dialect: driver, clients, errors."""
