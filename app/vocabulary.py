"""The vocabulary of a user: names and terms of their business that people say in calls. Recognizers prefer them where
they can."""

from sqlalchemy import delete, insert, select
from sqlalchemy.ext.asyncio import AsyncSession

from app.errors import InvalidRequest
from app.models import Call, User
from app.speech_models import VocabularyTermRow

MOST_CHARACTERS = 600
"""Of all terms together. Whisper's prompt takes no more, and a long one makes it see terms that nobody said."""


def parse(text: str) -> tuple[str, ...]:
    """Terms that are separated by commas or line ends, without doubles. Raises `InvalidRequest`."""
    terms = tuple(dict.fromkeys(" ".join(term.split()) for term in text.replace("\n", ",").split(",") if term.strip()))
    if sum(map(len, terms)) > MOST_CHARACTERS:
        raise InvalidRequest(f"A vocabulary has at most {MOST_CHARACTERS} characters. Keep what is misheard most often")
    if any(not term.isprintable() for term in terms):
        raise InvalidRequest("A vocabulary has words only. Separate them by commas")
    return terms


async def replace(session: AsyncSession, user: User, terms: tuple[str, ...]) -> None:
    """Set the user's vocabulary, in this order. It concerns recordings that are transcribed from now on."""
    await session.execute(delete(VocabularyTermRow).where(VocabularyTermRow.user_id == user.id))
    if terms:
        rows = [{"user_id": user.id, "position": at, "term": term} for at, term in enumerate(terms)]
        await session.execute(insert(VocabularyTermRow), rows)


async def list_terms(session: AsyncSession, user_id: str) -> list[str]:
    """The user's vocabulary."""
    query = select(VocabularyTermRow.term).where(VocabularyTermRow.user_id == user_id)
    return list(await session.scalars(query.order_by(VocabularyTermRow.position)))


async def list_terms_of_call(session: AsyncSession, call_id: str) -> list[str]:
    """The vocabulary of the user whose call this is."""
    query = select(VocabularyTermRow.term).join(Call, Call.user_id == VocabularyTermRow.user_id)
    return list(await session.scalars(query.where(Call.id == call_id).order_by(VocabularyTermRow.position)))
