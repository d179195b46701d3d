"""What exceptions are answered with."""

from __future__ import annotations

from http import HTTPStatus

from django.core.exceptions import BadRequest, PermissionDenied, SuspiciousOperation
from django.http import Http404
from django.http.multipartparser import MultiPartParserError


def error_status(error: Exception) -> int:
    """Return the status of the response that is going to be made of an exception.

    By Django, or by the REST framework, whose exceptions carry theirs.
    """
    if isinstance(error, Http404):
        return HTTPStatus.NOT_FOUND
    if isinstance(error, PermissionDenied):
        return HTTPStatus.FORBIDDEN
    if isinstance(error, BadRequest | SuspiciousOperation | MultiPartParserError):
        return HTTPStatus.BAD_REQUEST
    status = getattr(error, "status_code", None)
    return status if isinstance(status, int) else HTTPStatus.INTERNAL_SERVER_ERROR
