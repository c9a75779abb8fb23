"""Every error that a client can receive, in one tree. One handler (`app.api.envelope`) answers with them.

RingbackError                     HTTP
├── InvalidRequest                 400
│   ├── ValidationFailed           400  (422 under `/api`)
│   ├── InvalidCredentials         400
│   ├── InactiveUser               400
│   ├── UnverifiedUser             400
│   └── InvalidRefreshToken        400
├── InvalidToken                   401  (a bearer token: `detail`, not an envelope)
├── SessionEnded                   401  (a refresh token)
├── MissingAuth                    401  (a call report)
├── NotYours                       403
│   ├── NotYourCall                403
│   ├── NotYourNumber              403
│   └── NotOfTheProvider           403  (a provider's notification)
├── NotAllowed                     403  (a number that may not be called)
├── NotFound                       404
│   ├── NoSuchCall                 404
│   ├── NoSuchNumber               404
│   ├── NoSuchProvider             404
│   ├── NoSuchRecording            404
│   └── NoSuchAgent                404  (`detail` and `request_id`, not an envelope)
├── Conflict                       409
│   └── AlreadyExists              409
├── BodyTooLarge                   413
├── TooManyAttempts                429  (with Retry-After)
├── LimitReached                   429  (with Retry-After)
└── Unavailable                    503  (with Retry-After)
"""


class RingbackError(Exception):
    """`message` is for a person. The class says what happened."""

    status = 500
    message = "Something went wrong on this server. Its log has the request id."

    def __init__(self, message: str | None = None, *, retry_after: int | None = None) -> None:
        if message is not None:
            self.message = message
        self.retry_after = retry_after
        super().__init__(self.message)


class InvalidRequest(RingbackError):
    status = 400
    message = "The request is not valid"


class ValidationFailed(InvalidRequest):
    pass


class InvalidCredentials(InvalidRequest):
    message = "Incorrect email or password"


class InactiveUser(InvalidRequest):
    message = "Inactive user"


class UnverifiedUser(InvalidRequest):
    message = "Unverified user"


class InvalidRefreshToken(InvalidRequest):
    message = "Invalid refresh token"


class InvalidToken(RingbackError):
    status = 401
    message = "Could not validate credentials"


class SessionEnded(RingbackError):
    status = 401
    message = "This session has ended. Log in again"


class MissingAuth(RingbackError):
    status = 401
    message = "Missing auth. Use X-Greeter-Username/X-Greeter-Password, Authorization Basic/Bearer, or X-API-Key"


class NotYours(RingbackError):
    status = 403


class NotYourCall(NotYours):
    message = "Not authorized for this call"


class NotYourNumber(NotYours):
    message = "This phone number is not assigned to you"


class NotOfTheProvider(NotYours):
    message = "This is not signed by the telephony provider"


class NotAllowed(RingbackError):
    """`rule` names the rule that refuses the call, for the log."""

    status = 403

    def __init__(self, message: str, *, rule: str) -> None:
        super().__init__(message)
        self.rule = rule


class NotFound(RingbackError):
    status = 404


class NoSuchCall(NotFound):
    message = "Call not found"


class NoSuchNumber(NotFound):
    message = "Phone number not found"


class NoSuchProvider(NotFound):
    pass


class NoSuchRecording(NotFound):
    message = "This link is not valid, or it has expired. Ask for the call's transcript again: its answer has a new one"


class NoSuchDelivery(NotFound):
    message = "Callback not found"


class NoSuchRange(RingbackError):
    """`size` is the number of bytes that there are."""

    status = 416

    def __init__(self, message: str, *, size: int) -> None:
        super().__init__(message)
        self.size = size


class NoSuchAgent(NotFound):
    message = "Agent not found: this server has no voice agents"


class Conflict(RingbackError):
    status = 409


class AlreadyExists(Conflict):
    pass


class BodyTooLarge(RingbackError):
    status = 413
    message = "The request body is too large"


class TooManyAttempts(RingbackError):
    status = 429


class LimitReached(RingbackError):
    """`rule` names the limit, for the log."""

    status = 429

    def __init__(self, message: str, *, rule: str, retry_after: int) -> None:
        super().__init__(message, retry_after=retry_after)
        self.rule = rule


class Unavailable(RingbackError):
    status = 503
    message = "The server cannot reach its database. Try again in a few seconds"
