"""Migrations of the store, run by `Store` when it opens a database. A released one is never changed: add another."""
