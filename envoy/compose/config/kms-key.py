"""DEV ONLY. Sees to it that the KMS emulator has the one key that resolver.toml allows.

The emulator draws key ids from a seeded generator, so that the first key after a start always has the same id. Its
material is new at each start: what was wrapped before can't be unwrapped any more, and has to be wrapped again.
"""

import json
import urllib.error
import urllib.request

EMULATOR = "http://kms:5000"
KEY_ID = "cd613e30-d8f1-4adf-91b7-584a2265b1f5"
AUTHORIZATION = "AWS4-HMAC-SHA256 Credential=dev/20260101/ca-central-1/kms/aws4_request, SignedHeaders=host, Signature=x"


def call(action, body):
    headers = {
        "X-Amz-Target": f"TrentService.{action}",
        "Content-Type": "application/x-amz-json-1.1",
        "Authorization": AUTHORIZATION,
    }
    request = urllib.request.Request(EMULATOR, json.dumps(body).encode(), headers)
    with urllib.request.urlopen(request, timeout=10) as answer:
        return json.load(answer)["KeyMetadata"]


try:
    key = call("DescribeKey", {"KeyId": KEY_ID})
except urllib.error.HTTPError:
    urllib.request.urlopen(urllib.request.Request(f"{EMULATOR}/moto-api/seed?a=1", method="POST"), timeout=10).close()
    key = call("CreateKey", {"Description": "Bouncer, dev only"})
if key["KeyId"] != KEY_ID:
    raise SystemExit(f"the emulator made key {key['KeyId']} instead of {KEY_ID}: put its ARN into resolver.toml")
print(key["Arn"])
