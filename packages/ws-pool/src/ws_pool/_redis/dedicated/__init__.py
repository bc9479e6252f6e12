"""Connections that belong to one caller at a time: blocking commands, sessions, subscriptions."""
