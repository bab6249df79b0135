"""Where Alembic begins; the connection comes from `Store`, inside a transaction of its own."""

from __future__ import annotations

from alembic import context


def run() -> None:
    """Runs the migrations on the connection that was handed over."""
    context.configure(connection=context.config.attributes["connection"])
    context.run_migrations()


if hasattr(context, "config"):  # absent unless Alembic runs this
    run()
