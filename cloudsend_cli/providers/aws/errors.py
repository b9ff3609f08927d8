"""What AWS or its library said, in our classes: one function, one table. Importing this loads no SDK."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterator
from fnmatch import fnmatchcase

from cloudsend_cli.errors import (
    AuthError,
    CapacityError,
    CloudsendError,
    ConfigError,
    ExpiredError,
    Problem,
    ProviderError,
    QuotaError,
    UnreachableError,
)

THROTTLED = "throttled"
AMBIGUOUS = "ambiguous"
EXPIRED = "expired"  # EC2's word for credentials that are over: as ambiguous as no answer, and the user's to mend
CAPACITY = "capacity"
QUOTA = "quota"
AUTH = "auth"
CONFIG = "config"
UNSEEN = "unseen"  # "does not exist", said within the time in which what was just made is not seen everywhere
MISMATCH = "mismatch"
ENDED = "ended"
STATE = "state"
REFUSED = "refused"

POLICY_HINT = "`cloudsend aws policy` prints what cloudsend needs; `cloudsend check` tells what is missing"
CLOCK_HINT = "is this machine's clock right? AWS takes a request only within minutes of its date"
LOGIN_HINT = "renew the credentials (such as `aws sso login`); a run that goes on takes them up by itself"
QUOTA_HINT = (
    "use fewer or smaller machines, wait until others end, or ask for more at "
    "https://console.aws.amazon.com/servicequotas/home/services/ec2/quotas"
)

# The first row whose pattern fits an error's code decides. Codes: AWS's own, then names of botocore's exceptions.
_CODES: tuple[tuple[str, str], ...] = (
    (
        THROTTLED,
        "RequestLimitExceeded Throttling* ThrottledException EC2ThrottledException RequestThrottled* SlowDown "
        "TooManyRequestsException BandwidthLimitExceeded PriorRequestNotComplete "
        "TransactionInProgressException CapacityNotAvailableError",
    ),
    (
        AMBIGUOUS,
        "RequestTimeout RequestTimeoutException InternalError InternalFailure InternalServerError "
        "InternalServerException InternalException ServiceUnavailable* Unavailable ServiceException "
        "ConnectTimeoutError ReadTimeoutError ConnectionError EndpointConnectionError ConnectionClosedError "
        "HTTPClientError SSLError ProxyConnectionError IncompleteReadError ResponseStreamingError "
        "ResponseParserError InvalidEndpointDiscovery*",
    ),
    (EXPIRED, "RequestExpired"),
    (
        CAPACITY,
        "InsufficientInstanceCapacity InsufficientHostCapacity InsufficientReservedInstanceCapacity "
        "InsufficientCapacity* InsufficientVolumeCapacity InsufficientAddressCapacity UnfulfillableCapacity "
        "ReservationCapacityExceeded SpotMaxPriceTooLow Unsupported InsufficientFreeAddressesInSubnet "
        "MaxSpotInstanceCountExceeded",
    ),
    (ENDED, "IdempotentInstanceTerminated"),
    (MISMATCH, "IdempotentParameterMismatch IdempotentParameterMismatchException"),
    (
        QUOTA,
        "VcpuLimitExceeded *LimitExceeded *LimitExceededException ServiceQuotaExceededException "
        "ResourceCountExceeded PendingVerification RulesPerSecurityGroupLimitExceeded",
    ),
    (
        AUTH,
        "UnauthorizedOperation AccessDenied* AuthFailure OptInRequired Blocked NotAuthorized* "
        "InvalidClientTokenId UnrecognizedClientException SignatureDoesNotMatch InvalidSignatureException "
        "RequestTimeTooSkewed IncompleteSignature MissingAuthenticationToken* ExpiredToken* InvalidToken* "
        "InvalidAccessKeyId InvalidSecurity SubscriptionRequiredException NoCredentialsError "
        "PartialCredentialsError CredentialRetrievalError TokenRetrievalError NoAuthTokenError *SSOTokenError "
        "SSOTokenLoadError SSOError LoginRefreshRequired Login*Error LoginInsufficientPermissions "
        "MetadataRetrievalError RefreshWithMFAUnsupportedError UnknownCredentialError",
    ),
    (
        UNSEEN,
        "InvalidInstanceID.NotFound InvalidGroup.NotFound InvalidSecurityGroupID.NotFound InvalidGroupId.NotFound "
        "InvalidNetworkInterfaceID.NotFound InvalidVolume.NotFound InvalidSpotInstanceRequestID.NotFound",
    ),
    (
        STATE,
        "IncorrectInstanceState IncorrectState IncorrectSpotRequestState IncorrectStateException DependencyViolation "
        "VolumeInUse InvalidGroup.InUse InvalidIPAddress.InUse OperationNotPermitted ResourceInUse*",
    ),
    (
        CONFIG,
        "InvalidAMIID.* InvalidSubnet* InvalidVpc* InvalidParameter* InvalidInstanceType* InvalidBlockDeviceMapping "
        "InvalidUserData.* InvalidAvailabilityZone InvalidZone.* InvalidInput InvalidGroup.* MissingParameter "
        "MissingInput UnknownParameter ValidationError VPCIdNotSpecified InvalidSnapshot.NotFound "
        "UnsupportedOperation UnsupportedHibernationConfiguration EncryptedVolumesNotSupported "
        "NoRegionError InvalidRegionError InvalidConfigError ProfileNotFound ConfigNotFound ConfigParseError "
        "UnknownEndpointError UnknownRegionError ServiceNotInRegionError EndpointProviderError",
    ),
)

# What to do next, where the class alone does not say it. The first pattern that fits.
_HINTS: tuple[tuple[str, str], ...] = (
    ("OptInRequired", "the region or the service is not enabled for the account: enable it there, or use another"),
    ("Blocked", "the account is blocked: ask AWS Support"),
    ("PendingVerification", "AWS is still verifying the account: try again in some hours"),
    ("RequestExpired", f"{LOGIN_HINT}; if they are new: {CLOCK_HINT}"),
    ("RequestTimeTooSkewed", CLOCK_HINT),
    ("*Signature*", f"{CLOCK_HINT}; is the secret key right?"),
    ("*Expired*", LOGIN_HINT),
    ("*SSO*", LOGIN_HINT),
    ("*Token*Error", LOGIN_HINT),
    ("Login*", LOGIN_HINT),
    ("NoCredentialsError", "set up credentials (`aws configure`, AWS_PROFILE, or `profile` in providers.yml)"),
    ("PartialCredentialsError", "a part of the credentials is missing: look at ~/.aws/credentials and AWS_*"),
    ("CredentialRetrievalError", "the program or service that gives out the credentials failed"),
    ("SpotMaxPriceTooLow", "raise `max_price`, or leave it out: spot machines never cost more than on-demand ones"),
    ("MaxSpotInstanceCountExceeded", QUOTA_HINT),
    ("InsufficientFreeAddressesInSubnet", "use another subnet or zone, or end what holds its addresses"),
    ("Unsupported", "the type is not to be had there: allow other zones or types"),
    ("InvalidAMIID.*", "choose an `image` of this region; leave it out for the current Ubuntu LTS"),
    ("InvalidSubnet*", "choose a `subnet` of this region, or leave it out"),
    ("InvalidVpc*", "choose a `vpc` of this region, or leave it out"),
    ("VPCIdNotSpecified", "the region has no default VPC: name a `vpc`, or use another region"),
    ("InvalidInstanceType*", "choose a `type` that the region has, or say `cpus` and `memory` instead"),
    ("InvalidRegionError", "that is no region of AWS: look at `region`"),
    ("Unknown*", "is `region` right?"),
    ("NoRegionError", "name a `region` in the config, in providers.yml, in AWS_REGION or in ~/.aws/config"),
    ("ProfileNotFound", "is `profile` right? `aws configure list-profiles` lists those of this machine"),
    ("Config*", "look at ~/.aws/config"),
    ("DependencyViolation", "something still uses it: try again when that is gone"),
    ("*InUse*", "something still uses it: try again when that is gone"),
    ("OperationNotPermitted", "is it protected against that? AWS's console shows and changes it"),
    ("Incorrect*", "try again when it has come to rest"),
    ("EndpointConnectionError", "is the network up, and `region` right?"),
)

_KIND_HINTS = {
    THROTTLED: "AWS takes no more calls of this account for a moment; it is tried again",
    AMBIGUOUS: "it is not known whether it was done; asked for again, it is carried out once",
    EXPIRED: LOGIN_HINT,
    CAPACITY: "the next offer is tried; allow other zones or types, or both markets (`spot: prefer`)",
    QUOTA: QUOTA_HINT,
    AUTH: "are these the right credentials, and may they do this? `cloudsend check`",
    CONFIG: "mend the config",
    UNSEEN: "what was just made is not seen everywhere at once; it is tried again",
    MISMATCH: "this is a bug of cloudsend: a repeated request must not differ; please report it with the log",
    ENDED: "",
    STATE: "try again when it has come to rest",
    REFUSED: "AWS's words say why",
}

_RETRY_AFTER = {THROTTLED: 5.0, AMBIGUOUS: 2.0, EXPIRED: 5.0, UNSEEN: 3.0}

_DENIED = ("UnauthorizedOperation", "AccessDenied*")
_PERFORM = re.compile(r"\bto perform:? ([a-z0-9-]+:[A-Za-z0-9]+)")
_ENCODED = re.compile(r"\s*Encoded authorization failure message: [A-Za-z0-9_-]{40,}")
_LONGEST = 600


def translate(error: BaseException, action: str) -> CloudsendError:
    """The error for what happened when we tried to `action`, such as "launch m7i.large in eu-west-3a"."""
    if isinstance(error, CloudsendError):
        return error
    code, words, status = read_error(error)
    kind = classify(code, status) if getattr(error, "response", None) or not _is_transport(error) else AMBIGUOUS
    said = f"{words} ({code})" if code and code not in words else words
    if kind == ENDED:
        message = f"AWS would not {action} again: the request had one that has ended: {said}"
    elif kind == MISMATCH:
        message = f"AWS would not {action}: a bug of cloudsend: the same token came with another request: {said}"
    else:
        message = f"AWS would not {action}: {said}"
    if kind in _RETRY_AFTER:
        message = f"AWS did not {action}: {said}" if kind != AMBIGUOUS else f"no answer of AWS to: {action}: {said}"
    hint = next((hint for pattern, hint in _HINTS if fnmatchcase(code, pattern)), _KIND_HINTS[kind])
    if any(fnmatchcase(code, pattern) for pattern in _DENIED):
        hint = explain_denial(str(getattr(error, "operation_name", "")), words)
    made = _CLASSES[kind](message, hint, str(error))
    made.retry_after = _RETRY_AFTER.get(kind, 0.0)
    return made


def explain_denial(operation: str, words: str) -> str:
    """Which action is denied, and what of our policy allows it. AWS's words name another one than what was called
    where a call needs several, such as tags in the call that makes something."""
    from .policy import list_statements

    statements = list_statements()
    named = _PERFORM.search(words)
    fitting = [action for action in statements if action.partition(":")[2] == operation]
    action = named[1] if named else fitting[0] if len(fitting) == 1 else operation
    if "explicit deny" in words:
        return f"denied is {action}, by a policy of the account that forbids it: that one has to change"
    allowed = statements.get(action)
    if not allowed:
        return POLICY_HINT
    names = f"statement{'' if len(allowed) == 1 else 's'} {', '.join(allowed)}"
    return (
        f"denied is {action}, which the {names} of `cloudsend aws policy` {'allows' if len(allowed) == 1 else 'allow'}"
        "; `cloudsend check` tells what else is missing"
    )


def classify(code: str, status: int = 0) -> str:
    """The kind of an error by its code, and by the HTTP status where the code is unknown."""
    for kind, patterns in _CODES:
        if any(fnmatchcase(code, pattern) for pattern in patterns.split()):
            return kind
    if status in {429, 503}:
        return THROTTLED
    return AMBIGUOUS if status >= 500 else REFUSED


def read_error(error: BaseException) -> tuple[str, str, int]:
    """(code, AWS's words, HTTP status) of an exception of botocore; the code of one without an answer is its name."""
    response = getattr(error, "response", None)
    if not isinstance(response, dict):
        return type(error).__name__, " ".join(str(error).split())[:_LONGEST], 0
    about = response.get("Error") or {}
    status = (response.get("ResponseMetadata") or {}).get("HTTPStatusCode") or 0
    words = _ENCODED.sub("", str(about.get("Message") or "no reason given"))
    return str(about.get("Code") or ""), " ".join(words.split())[:_LONGEST], int(status)


@contextlib.contextmanager
def translating(action: str) -> Iterator[None]:
    """Errors of botocore inside come out as ours; anything else is a bug and passes."""
    try:
        yield
    except Exception as error:
        if not is_foreign(error):
            raise
        raise translate(error, action) from error


def is_foreign(error: BaseException) -> bool:
    """Whether botocore or boto3 made it, or the network below them."""
    return _is_transport(error) or bool(_modules(error) & {"botocore", "boto3"})


def _is_transport(error: BaseException) -> bool:
    """Whether the network's layers made it, which botocore mostly wraps: nobody knows what became of the call."""
    return isinstance(error, OSError) or "urllib3" in _modules(error)


def _modules(error: BaseException) -> set[str]:
    return {cls.__module__.partition(".")[0] for cls in type(error).__mro__}


def _config_error(message: str, hint: str, context: str) -> ConfigError:
    made = ConfigError([Problem(message, hint=hint)], hint=hint)
    made.context = context
    return made


def _plain(cls: type[CloudsendError]) -> Callable[[str, str, str], CloudsendError]:
    return lambda message, hint, context: cls(message, hint=hint, context=context)


_CLASSES: dict[str, Callable[[str, str, str], CloudsendError]] = {
    THROTTLED: _plain(UnreachableError),
    AMBIGUOUS: _plain(UnreachableError),
    EXPIRED: _plain(ExpiredError),
    CAPACITY: _plain(CapacityError),
    QUOTA: _plain(QuotaError),
    AUTH: _plain(AuthError),
    CONFIG: _config_error,
    UNSEEN: _plain(UnreachableError),
    MISMATCH: _plain(ProviderError),
    ENDED: _plain(CapacityError),
    STATE: _plain(ProviderError),
    REFUSED: _plain(ProviderError),
}
