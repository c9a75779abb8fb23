"""What users say about the speech in their calls, as tables."""

from sqlalchemy import ForeignKey, Integer
from sqlalchemy.orm import Mapped, mapped_column

from app.models import Base


class VocabularyTermRow(Base):
    """A name or term that people say in this user's calls."""

    __tablename__ = "vocabulary_terms"

    user_id: Mapped[str] = mapped_column(ForeignKey("users.id", ondelete="CASCADE"), primary_key=True)
    position: Mapped[int] = mapped_column(Integer, primary_key=True)
    term: Mapped[str]
