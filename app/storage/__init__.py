"""Storage of recordings. Keys are made by this server, never from user input."""

from app.storage.base import NoSuchObject, Storage, StorageError, Stored, TooLarge
from app.storage.folder import FolderStorage
from app.storage.s3 import S3Storage

__all__ = ["FolderStorage", "NoSuchObject", "S3Storage", "Storage", "StorageError", "Stored", "TooLarge"]
