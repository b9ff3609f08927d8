"""AWS's errors in our words: each code of the tables, what is said, and what is done next."""

from __future__ import annotations

import pytest
from botocore.exceptions import (
    ClientError,
    ConnectTimeoutError,
    EndpointConnectionError,
    NoCredentialsError,
    NoRegionError,
    ParamValidationError,
    ProfileNotFound,
    ReadTimeoutError,
    UnauthorizedSSOTokenError,
)

from cloudsend_cli.errors import (
    AuthError,
    CapacityError,
    CloudsendError,
    ConfigError,
    ExpiredError,
    ProviderError,
    QuotaError,
    UnreachableError,
)
from cloudsend_cli.providers.aws.errors import translate, translating

ACTION = "launch m7i.large in eu-west-3a"


def client_error(code: str, words: str = "Words of AWS.", status: int = 400) -> ClientError:
    return ClientError(
        {"Error": {"Code": code, "Message": words}, "ResponseMetadata": {"HTTPStatusCode": status}},  # type: ignore[typeddict-item]
        "RunInstances",
    )


TABLE = {
    # throttled: the same request again, later
    UnreachableError: "RequestLimitExceeded Throttling ThrottlingException EC2ThrottledException SlowDown "
    # nobody knows whether it was done: the same request again
    "RequestTimeout InternalError InternalFailure ServiceUnavailable Unavailable "
    # said of what was just made and is not seen everywhere
    "InvalidInstanceID.NotFound InvalidGroup.NotFound InvalidNetworkInterfaceID.NotFound",
    ExpiredError: "RequestExpired",
    CapacityError: "InsufficientInstanceCapacity InsufficientHostCapacity InsufficientReservedInstanceCapacity "
    "UnfulfillableCapacity InsufficientCapacity SpotMaxPriceTooLow Unsupported InsufficientFreeAddressesInSubnet "
    "MaxSpotInstanceCountExceeded IdempotentInstanceTerminated",
    QuotaError: "VcpuLimitExceeded InstanceLimitExceeded VolumeLimitExceeded MaxIOPSLimitExceeded PendingVerification "
    "SecurityGroupLimitExceeded ServiceQuotaExceededException",
    AuthError: "UnauthorizedOperation AccessDenied AccessDeniedException AuthFailure OptInRequired Blocked "
    "InvalidClientTokenId UnrecognizedClientException SignatureDoesNotMatch ExpiredToken ExpiredTokenException "
    "RequestTimeTooSkewed MissingAuthenticationToken",
    ConfigError: "InvalidAMIID.NotFound InvalidAMIID.Malformed InvalidAMIID.Unavailable InvalidSubnetID.NotFound "
    "InvalidParameterValue InvalidParameterCombination InvalidParameter InvalidVpcID.NotFound MissingParameter "
    "InvalidBlockDeviceMapping VPCIdNotSpecified UnsupportedOperation",
    ProviderError: "IdempotentParameterMismatch IncorrectInstanceState OperationNotPermitted DependencyViolation "
    "SomethingNew",
}


@pytest.mark.parametrize(
    ("code", "cls"), [(code, cls) for cls, codes in TABLE.items() for code in codes.split()], ids=str
)
def test_each_code_has_its_class(code: str, cls: type[CloudsendError]) -> None:
    error = translate(client_error(code), ACTION)
    assert type(error) is cls
    assert ACTION in error.message and "Words of AWS." in error.message and code in error.message
    assert "Words of AWS." in error.context
    assert error.hint or code == "IdempotentInstanceTerminated"


@pytest.mark.parametrize(
    ("status", "cls"),
    [
        *((status, UnreachableError) for status in (429, 500, 502, 503, 504)),
        (400, ProviderError),
        (404, ProviderError),
    ],
)
def test_unknown_code_goes_by_its_status(status: int, cls: type[CloudsendError]) -> None:
    assert type(translate(client_error("NeverHeardOf", status=status), ACTION)) is cls


def test_lack_of_capacity_is_no_accident_of_the_server() -> None:
    """EC2 sends it with 500 and 503."""
    for status in (500, 503):
        error = translate(client_error("InsufficientInstanceCapacity", status=status), ACTION)
        assert type(error) is CapacityError


@pytest.mark.parametrize(
    "error",
    [
        ConnectTimeoutError(endpoint_url="https://ec2"),
        ReadTimeoutError(endpoint_url="https://ec2"),
        EndpointConnectionError(endpoint_url="https://ec2"),
        ConnectionResetError(104, "Connection reset by peer"),
        TimeoutError("timed out"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_no_answer_proves_nothing(error: Exception) -> None:
    told = translate(error, ACTION)
    assert type(told) is UnreachableError
    assert told.transient
    assert ACTION in told.message


@pytest.mark.parametrize(
    ("error", "cls", "hint"),
    [
        (NoCredentialsError(), AuthError, "aws configure"),
        (UnauthorizedSSOTokenError(), AuthError, "aws sso login"),
        (ProfileNotFound(profile="work"), ConfigError, "list-profiles"),
        (NoRegionError(), ConfigError, "AWS_REGION"),
        (ParamValidationError(report="Unknown parameter"), ProviderError, "words"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_never_left_this_machine(error: Exception, cls: type[CloudsendError], hint: str) -> None:
    told = translate(error, ACTION)
    assert type(told) is cls
    assert hint in told.hint


def test_credentials_that_are_over_end_a_command_as_others_that_do_not_serve() -> None:
    """Seen: exit status 6. They prove nothing of what was asked for: a run waits, and asks again."""
    over = translate(client_error("RequestExpired"), ACTION)
    assert (over.exit_status, over.transient) == (AuthError.exit_status, True)
    assert isinstance(over, UnreachableError)


def test_those_that_pass_say_how_long_to_wait() -> None:
    assert translate(client_error("RequestLimitExceeded"), ACTION).retry_after >= 5
    assert translate(client_error("InternalError", status=500), ACTION).retry_after > 0
    assert translate(client_error("InvalidInstanceID.NotFound"), ACTION).retry_after > 0
    assert translate(client_error("VcpuLimitExceeded"), ACTION).retry_after == 0


def test_texts() -> None:
    quota = translate(client_error("VcpuLimitExceeded", "You have requested more vCPU capacity."), ACTION)
    assert quota.message == (
        "AWS would not launch m7i.large in eu-west-3a: You have requested more vCPU capacity. (VcpuLimitExceeded)"
    )
    assert "servicequotas" in quota.hint
    ended = translate(client_error("IdempotentInstanceTerminated"), ACTION)
    assert "had one that has ended" in ended.message
    mismatch = translate(client_error("IdempotentParameterMismatch"), ACTION)
    assert "bug of cloudsend" in mismatch.message and "report" in mismatch.hint
    lost = translate(ReadTimeoutError(endpoint_url="https://ec2"), ACTION)
    assert lost.message.startswith("no answer of AWS to: launch m7i.large in eu-west-3a: Read timeout")
    denied = translate(client_error("UnauthorizedOperation", "You are not authorized."), ACTION)
    assert "cloudsend aws policy" in denied.hint
    assert "is this machine's clock right" in translate(client_error("RequestExpired"), ACTION).hint


def test_encoded_part_of_a_refusal_is_left_out_of_the_message() -> None:
    words = "You are not authorized. Encoded authorization failure message: " + "aB3_-" * 200
    error = translate(client_error("UnauthorizedOperation", words), ACTION)
    assert len(error.message) < 200
    assert "aB3_-" in error.context


@pytest.mark.parametrize(
    ("words", "action", "statement"),
    [
        ("You are not authorized.", "ec2:RunInstances", "LaunchTagged, LaunchFromAndIn, LaunchBehindOwnGroup"),
        ("User: u is not authorized to perform: ec2:CreateTags on resource: r", "ec2:CreateTags", "TagWhatIsMade"),
        ("u is not authorized to perform: ec2:RunInstances with an explicit deny in p", "ec2:RunInstances", "forbids"),
    ],
)
def test_a_denial_names_the_action_and_the_statement_that_allows_it(words: str, action: str, statement: str) -> None:
    denied = translate(client_error("UnauthorizedOperation", words, status=403), ACTION)
    assert denied.exit_status == 4
    assert f"denied is {action}," in denied.hint and statement in denied.hint


def test_our_own_errors_and_bugs_pass_untouched() -> None:
    with pytest.raises(QuotaError, match=r"^ours$"), translating(ACTION):
        raise QuotaError("ours")
    with pytest.raises(KeyError), translating(ACTION):
        raise KeyError("bug")
