"""Any REST service that connects two numbers, described by a template file."""

from app.telephony.http.adapter import TemplateProvider
from app.telephony.http.options import HttpOptions

__all__ = ["HttpOptions", "TemplateProvider"]
