"""Every error a client can be told of, in one tree. One handler (`app.api.envelope`) prints them.

RingbackError                     HTTP  code
├── InvalidRequest                 400  invalid_request
│   ├── ValidationFailed           400  validation_failed      (422 under `/api`)
│   ├── InvalidCredentials         400  invalid_credentials
│   ├── InactiveUser               400  inactive_user
│   ├── UnverifiedUser             400  unverified_user
│   └── InvalidRefreshToken        400  invalid_refresh_token
├── InvalidToken                   401  invalid_token          (a bearer token: `detail`, not an envelope)
├── SessionEnded                   401  session_ended          (a refresh token)
├── MissingAuth                    401  missing_auth           (a call report)
├── NotYours                       403  not_yours
│   ├── NotYourCall                403  not_your_call
│   └── NotYourNumber              403  not_your_number
├── NotFound                       404  not_found
│   ├── NoSuchCall                 404  no_such_call
│   ├── NoSuchNumber               404  no_such_number
│   ├── NoSuchRecording            404  no_such_recording
│   └── NoSuchAgent                404  no_such_agent          (`detail` and `request_id`, not an envelope)
├── Conflict                       409  conflict
│   └── AlreadyExists              409  already_exists
├── BodyTooLarge                   413  body_too_large
├── TooManyAttempts                429  too_many_attempts      (with Retry-After)
└── Unavailable                    503  unavailable            (with Retry-After)
"""


class RingbackError(Exception):
    """`message` is for a person; `code` is stable and for programs."""

    status = 500
    code = "internal_error"
    message = "Something went wrong on this server. Its log has the request id."

    def __init__(self, message: str | None = None, *, retry_after: int | None = None) -> None:
        if message is not None:
            self.message = message
        self.retry_after = retry_after
        super().__init__(self.message)


class InvalidRequest(RingbackError):
    status = 400
    code = "invalid_request"
    message = "The request is not valid"


class ValidationFailed(InvalidRequest):
    code = "validation_failed"


class InvalidCredentials(InvalidRequest):
    code = "invalid_credentials"
    message = "Incorrect email or password"


class InactiveUser(InvalidRequest):
    code = "inactive_user"
    message = "Inactive user"


class UnverifiedUser(InvalidRequest):
    code = "unverified_user"
    message = "Unverified user"


class InvalidRefreshToken(InvalidRequest):
    code = "invalid_refresh_token"
    message = "Invalid refresh token"


class InvalidToken(RingbackError):
    status = 401
    code = "invalid_token"
    message = "Could not validate credentials"


class SessionEnded(RingbackError):
    status = 401
    code = "session_ended"
    message = "This session has ended. Log in again"


class MissingAuth(RingbackError):
    status = 401
    code = "missing_auth"
    message = "Missing auth. Use X-Greeter-Username/X-Greeter-Password, Authorization Basic/Bearer, or X-API-Key"


class NotYours(RingbackError):
    status = 403
    code = "not_yours"


class NotYourCall(NotYours):
    code = "not_your_call"
    message = "Not authorized for this call"


class NotYourNumber(NotYours):
    code = "not_your_number"
    message = "This phone number is not assigned to you"


class NotFound(RingbackError):
    status = 404
    code = "not_found"


class NoSuchCall(NotFound):
    code = "no_such_call"
    message = "Call not found"


class NoSuchNumber(NotFound):
    code = "no_such_number"
    message = "Phone number not found"


class NoSuchRecording(NotFound):
    code = "no_such_recording"
    message = "This link is not valid, or it has expired. Ask for the call's transcript again: its answer has a new one"


class NoSuchAgent(NotFound):
    code = "no_such_agent"
    message = "Agent not found: this server has no voice agents"


class Conflict(RingbackError):
    status = 409
    code = "conflict"


class AlreadyExists(Conflict):
    code = "already_exists"


class BodyTooLarge(RingbackError):
    status = 413
    code = "body_too_large"
    message = "The request body is too large"


class TooManyAttempts(RingbackError):
    status = 429
    code = "too_many_attempts"


class Unavailable(RingbackError):
    status = 503
    code = "unavailable"
    message = "The server cannot reach its database. Try again in a few seconds"
