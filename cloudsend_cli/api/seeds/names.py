"""Each age of the seeds has its own prefix; what these names stand for is the same. The one table of them."""

from __future__ import annotations

from cloudsend_cli.errors import CloudsendError

from .objects import (
    CloudSendEnvironment,
    CloudSendInstance,
    CloudSendJob,
    CloudSendProcess,
    CloudSendRunSession,
)
from .provider import CloudSendProvider
from .states import CloudSendInstanceState, CloudSendJobState, CloudSendProviderState

CloudRunCommandState = CloudSendJobState
CloudRunJobState = CloudSendJobState
CloudRunProcessState = CloudSendJobState
CloudSendProcessState = CloudSendJobState
KatapultProcessState = CloudSendJobState

CloudRunInstanceState = CloudSendInstanceState
KatapultInstanceState = CloudSendInstanceState
CloudRunProviderState = CloudSendProviderState
KatapultProviderState = CloudSendProviderState

CloudRunError = CloudsendError
CloudSendError = CloudsendError
KatapultError = CloudsendError

CloudRunProvider = CloudSendProvider
CloudRunInstance = CloudSendInstance
CloudRunEnvironment = CloudSendEnvironment
CloudRunDeployedEnvironment = CloudSendEnvironment
CloudRunJob = CloudSendJob
CloudRunDeployedJob = CloudSendJob
CloudRunProcess = CloudSendProcess

CloudSendDeployedEnvironment = CloudSendEnvironment
CloudSendDeployedJob = CloudSendJob

KatapultProvider = CloudSendProvider
KatapultInstance = CloudSendInstance
KatapultEnvironment = CloudSendEnvironment
KatapultJob = CloudSendJob
KatapultProcess = CloudSendProcess
KatapultRunSession = CloudSendRunSession
