"""What KubeRay 1.6 takes in a RayService, as its public field reference lists it: the fields, not the pods inside.

Kubernetes' own types (pod templates, sources of secrets) are left to the schemas of Kubernetes.
"""

from __future__ import annotations

from typing import Any

TEXTS = {"type": "object", "additionalProperties": {"type": "string"}}
OF_KUBERNETES = {"type": "object"}
COUNT = {"type": "integer", "minimum": 0}


def _closed(required: tuple[str, ...] = (), **fields: dict[str, Any]) -> dict[str, Any]:
    return {"type": "object", "additionalProperties": False, "properties": fields, "required": list(required)}


def _one_of(*words: str) -> dict[str, Any]:
    return {"enum": list(words)}


CREDENTIAL = _closed(value={"type": "string"}, valueFrom=OF_KUBERNETES)
HEAD = _closed(
    ("rayStartParams", "template"),
    rayStartParams=TEXTS,
    template=OF_KUBERNETES,
    resources=TEXTS,
    labels=TEXTS,
    headService=OF_KUBERNETES,
    serviceType=_one_of("ClusterIP", "NodePort", "LoadBalancer"),
    enableIngress={"type": "boolean"},
)
WORKERS = _closed(
    ("groupName", "minReplicas", "maxReplicas", "rayStartParams", "template"),
    groupName={"type": "string"},
    replicas=COUNT,
    minReplicas=COUNT,
    maxReplicas=COUNT,
    numOfHosts=COUNT,
    idleTimeoutSeconds=COUNT,
    rayStartParams=TEXTS,
    template=OF_KUBERNETES,
    resources=TEXTS,
    labels=TEXTS,
)
CLUSTER = _closed(
    ("headGroupSpec",),
    rayVersion={"type": "string"},
    authOptions=_closed(mode=_one_of("token", "disabled"), secretName={"type": "string"}),
    enableInTreeAutoscaling={"type": "boolean"},
    autoscalerOptions=OF_KUBERNETES,
    gcsFaultToleranceOptions=_closed(
        ("redisAddress",),
        redisAddress={"type": "string"},
        redisUsername=CREDENTIAL,
        redisPassword=CREDENTIAL,
        externalStorageNamespace={"type": "string"},
    ),
    headServiceAnnotations=TEXTS,
    headGroupSpec=HEAD,
    workerGroupSpecs={"type": "array", "items": WORKERS},
)
RAY_SERVICE = _closed(
    ("apiVersion", "kind", "metadata", "spec"),
    apiVersion=_one_of("ray.io/v1"),
    kind=_one_of("RayService"),
    metadata=OF_KUBERNETES,
    spec=_closed(
        serveConfigV2={"type": "string"},
        rayClusterConfig=CLUSTER,
        serveService=OF_KUBERNETES,
        upgradeStrategy=_closed(type=_one_of("NewCluster", "NewClusterWithIncrementalUpgrade", "None")),
        rayClusterDeletionDelaySeconds=COUNT,
        excludeHeadPodFromServeSvc={"type": "boolean"},
    ),
)
