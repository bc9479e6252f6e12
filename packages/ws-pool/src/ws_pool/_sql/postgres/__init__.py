"""The PostgreSQL dialect: driver, grammar of text statements, errors."""
