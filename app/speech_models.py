"""What users say about the speech in their calls, as tables."""

from typing import Any

from sqlalchemy import Boolean, ForeignKey, Integer, text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapped, mapped_column

from app.models import Base


class VocabularyTermRow(Base):
    """A name or term that people say in this user's calls."""

    __tablename__ = "vocabulary_terms"

    user_id: Mapped[str] = mapped_column(ForeignKey("users.id", ondelete="CASCADE"), primary_key=True)
    position: Mapped[int] = mapped_column(Integer, primary_key=True)
    term: Mapped[str]


class OutcomeSetRow(Base):
    """The outcomes and fields that a user wants instead of the default set. See `app.outcome_sets`."""

    __tablename__ = "outcome_sets"

    user_id: Mapped[str] = mapped_column(ForeignKey("users.id", ondelete="CASCADE"), primary_key=True)
    detailed: Mapped[bool] = mapped_column(Boolean, server_default=text("false"))
    outcomes: Mapped[list[dict[str, Any]]] = mapped_column(JSONB, server_default=text("'[]'"))
    fields: Mapped[list[dict[str, Any]]] = mapped_column(JSONB, server_default=text("'[]'"))
