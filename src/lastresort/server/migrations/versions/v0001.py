"""The first tables."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "v0001"
down_revision = None


def upgrade() -> None:
    """Makes the tables."""
    op.create_table("setting", sa.Column("name", sa.String(40), primary_key=True), sa.Column("value", sa.Text, nullable=False))
    op.create_table(
        "conversation",
        sa.Column("id", sa.String(40), primary_key=True),
        sa.Column("model", sa.String(200), nullable=False),
        sa.Column("digest", sa.String(64), nullable=False),
        sa.Column("mode", sa.String(10), nullable=False),
        sa.Column("created", sa.BigInteger, nullable=False),
        sa.Column("updated", sa.BigInteger, nullable=False),
        sa.Column("turns", sa.Integer, nullable=False),
    )
    op.create_index("conversation_updated", "conversation", ["updated"])
    op.create_table(
        "turn",
        sa.Column("conversation", sa.String(40), sa.ForeignKey("conversation.id", ondelete="CASCADE"), primary_key=True),
        sa.Column("number", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("parent", sa.Integer, nullable=True),
        sa.Column("depth", sa.Integer, nullable=False),
        sa.Column("role", sa.String(10), nullable=False),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("decision", sa.Text, nullable=False),
        sa.Column("scores", sa.Text, nullable=False),
        sa.Column("windows", sa.Integer, nullable=False),
        sa.Column("content", sa.Text, nullable=True),
        sa.Column("created", sa.BigInteger, nullable=False),
    )
    op.create_table(
        "answer",
        sa.Column("scope", sa.String(40), primary_key=True),
        sa.Column("key", sa.String(200), primary_key=True),
        sa.Column("request", sa.String(64), nullable=False),
        sa.Column("conversation", sa.String(40), sa.ForeignKey("conversation.id", ondelete="CASCADE"), nullable=False),
        sa.Column("turn", sa.Integer, nullable=True),
    )
    op.create_index("ix_answer_conversation", "answer", ["conversation"])
    op.create_table(
        "feedback",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("conversation", sa.String(40), sa.ForeignKey("conversation.id", ondelete="CASCADE"), nullable=False),
        sa.Column("turn", sa.Integer, nullable=False),
        sa.Column("verdict", sa.String(10), nullable=False),
        sa.Column("created", sa.BigInteger, nullable=False),
    )
    op.create_index("ix_feedback_conversation", "feedback", ["conversation"])


def downgrade() -> None:
    """Drops the tables."""
    for name in ("feedback", "answer", "turn", "conversation", "setting"):
        op.drop_table(name)
