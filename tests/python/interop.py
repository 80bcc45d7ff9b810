"""AWS's own SDK on the other side of Bouncer's ciphertexts. Run by tests/tests/interop.rs; data on standard input and output.

    interop.py encrypt ENDPOINT KEY_ARN CONTEXT   # plaintext -> ciphertext_ref, by KMS Encrypt
    interop.py seal ENDPOINT KEY_ARN CONTEXT      # plaintext -> ciphertext_ref, an envelope
    interop.py open ENDPOINT KEY_ARN CONTEXT      # ciphertext_ref -> plaintext, whichever it is

Ends with 3 where KMS or the tag says that the ciphertext is not authentic.
"""

import base64
import os
import sys

import boto3
import botocore.exceptions
import envelope


def main(command, endpoint, key, text):
    """Does what the command says."""
    region = key.split(":")[3]
    test = {"aws_access_key_id": "test", "aws_secret_access_key": "test"}
    kms = boto3.client("kms", region_name=region, endpoint_url=endpoint, **test)
    context = envelope.parse_context(text)
    given = sys.stdin.buffer.read()
    under = {"KeyId": key, "EncryptionContext": context}
    if command == "encrypt":
        raw = kms.encrypt(Plaintext=given, **under)["CiphertextBlob"]
    elif command == "seal":
        made = kms.generate_data_key(KeySpec="AES_256", **under)
        raw = envelope.seal(given, context, made["Plaintext"], made["CiphertextBlob"], os.urandom(12))
    else:
        raw = envelope.decode(given.decode().strip())
        is_envelope = raw.startswith(envelope.MAGIC)
        blob = envelope.parse(raw)[1] if is_envelope else raw
        plaintext = kms.decrypt(CiphertextBlob=blob, **under)["Plaintext"]
        sys.stdout.buffer.write(envelope.open_envelope(raw, context, plaintext) if is_envelope else plaintext)
        return
    print(base64.b64encode(raw).decode())


if __name__ == "__main__":
    try:
        main(*sys.argv[1:])
    except envelope.InvalidTag:
        sys.exit(3)
    except botocore.exceptions.ClientError as error:
        print(error, file=sys.stderr)
        sys.exit(3 if error.response["Error"]["Code"] == "InvalidCiphertextException" else 1)
