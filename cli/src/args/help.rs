//! The long help texts: what a command is for, by example. Shown by `--help`, not by `-h`.

/// The flag that everything else waits for.
pub(super) const FLAG: &str = "flags.crypto.dual_custody_intercept";

pub(super) const TOP: &str = "\
Environment:
  CONTROL_PLANE_URL  the control plane's base URL
  BOUNCER_TOKEN_FILE a file that holds the API token, unless --token-file is given
  TOKEN              the API token, unless a file is named
  BOUNCER_CA_FILE    whom to trust there, unless --ca-file is given
  AWS_*              wrap and rewrap find their AWS credentials as the AWS CLI does: environment,
                     profile, web identity, container, instance

Exit codes:
  0  done, and healthy
  1  refused, or unhealthy; of `diff`: there are differences
  2  the command line is wrong
  3  the control plane or KMS could not be reached: no connection, no trust in its certificate, or
     no answer in time
  4  not made yet: the control plane asks for a second person, and the change waits as a proposal

The first token is good for one exchange:
  bouncerctl tokens create admin --role admin --out admin.token --token-file bootstrap.token
  export BOUNCER_TOKEN_FILE=admin.token

A first credential, from nothing to traffic:
  bouncerctl flags enable
  bouncerctl settings set --kms-key-arn \"$KMS_KEY_ARN\"
  bouncerctl bouncers add payments-east --spiffe-id spiffe://example.org/bouncer/payments-east
  bouncerctl wrap --key-arn \"$KMS_KEY_ARN\" --in bundle.pem \\
      --aad env=production,bouncer=payments-east,upstream=payments.internal:8443,caller=spiffe://example.org/ns/shop/* \\
      --register protected-resources/payments-api/upstream-tls
  bouncerctl resources add payments-api --bouncer payments-east --cluster payments \\
      --upstream payments.internal:8443 --caller 'spiffe://example.org/ns/shop/*' \\
      --logical-path protected-resources/payments-api/upstream-tls
  bouncerctl status && bouncerctl probe";

pub(super) const WRAP: &str = "\
What may be in the file:
  - PEM: one private key (PKCS#8, PKCS#1 or SEC1, not encrypted), with its certificate chain, leaf
    first, or without it and the chain by --chain
  - JSON: {\"kind\":\"client_certificate\",\"private_key\":PEM,\"certificate_chain\":PEM}
  - JSON: {\"kind\":\"header\",\"name\":\"authorization\",\"prefix\":\"Bearer \",\"value\":...}

KMS encrypts at most 4,096 bytes. Where key and chain together are longer, only the key is
encrypted, and the chain, which is public, stands beside it as `certificate_chain`. What is longer
even so (a key of RSA 8192, a long token) goes into an envelope: KMS makes a data key for it and
wraps that, AES-256-GCM does the rest, and the bouncer still makes one KMS call. --form envelope
puts the whole bundle into one, whatever its length; --form direct refuses to make one. The format
is documented in custody/src/envelope.rs, with vectors for other implementations.

Before anything is sent, the key is compared with the certificate and the dates are checked: what
no bouncer could use is refused here, and not at the first request in production.

The binding (--aad) is proved by KMS at every use. Name all three of
  bouncer=   the bouncer's name
  upstream=  host:port of the only destination, or *.suffix
  caller=    the SPIFFE ID that may use it, or a prefix ending in /*
or see to it that the resolver's own rails bind the ones left out. generation=N also guards against
a roll-back to an earlier registration.

With generation=N in the AAD the registration must become generation N, and is refused otherwise.

Needs kms:Encrypt on the key (kms:GenerateDataKey for an envelope), and nothing else. The result holds no plaintext: it may be stored,
mailed and committed.

Examples:
  bouncerctl wrap --key-arn \"$KMS_KEY_ARN\" --in bundle.pem \\
      --aad env=production,bouncer=payments-east >wrapped.json
  bouncerctl wrap --key-arn \"$KMS_KEY_ARN\" --in key.pem --chain chain.pem \\
      --aad bouncer=payments-east,upstream=payments.internal:8443,caller=spiffe://example.org/ns/shop/*
  vault read -field=bundle pki/… | bouncerctl wrap --in - --key-arn … --aad … --register PATH";

pub(super) const REWRAP: &str = "\
Each credential is moved by KMS ReEncrypt: KMS decrypts under the old key and encrypts under the new
one, and nothing in clear ever leaves it. Of an envelope only the wrapped data key is moved. The AAD
stays as it is, and KMS proves it on the way. The result is registered as the next generation of the
same logical path, with the same certificate chain; a revoked credential stays revoked.

generation=N in the AAD becomes N+1, in KMS's encryption context too, since a bouncer compares it
with the registration's number. The registration names that number: if somebody else registered the
path meanwhile, it is refused, nothing changes, and the next run takes up what they registered.

Interrupted or failed, it is simply run again: what is on the new key already is not touched, and
no state is kept anywhere else. One credential that fails stops no other; where the control plane or
KMS can't be reached three times in a row, the rest is not tried. Exit code 1 if any was not moved.

Where a second person is asked for, a move waits as a proposal, and the exit code is 4.
Until it is decided, a further run names that proposal, whoever made it, and makes no other.

In this order:
  1. bouncerctl inventory; bouncerctl rewrap --all --dry-run --from-key OLD --to-key NEW
  2. allow the new key in every resolver's rails (`kms_keys`) and kms:Decrypt on it for their role;
     otherwise streams are denied with key_not_allowed or kms_access_denied
  3. bouncerctl rewrap --all --from-key OLD --to-key NEW
  4. bouncerctl settings set --kms-key-arn NEW; bouncerctl probe, until every bouncer is in sync
  5. bouncerctl inventory --key OLD shows none; disable the old key, wait, and only then delete it

Needs kms:ReEncryptFrom on the old key and kms:ReEncryptTo on the new one, never kms:Decrypt. Both
keys must be in one region, since KMS does not re-encrypt across regions; they may be in two accounts.

With --vault, what Vault's transit engine encrypted is moved to the newest version of its own key by
transit/rewrap, which needs update on <mount>/rewrap/<key>, never decrypt. Vault does not rewrap what
is bound by associated data, which is how an AAD is kept there (OpenBao 2.7 answers that the message
is not authentic): such a credential stays as it is, and is told of. Encrypt it anew, and register it.

Examples:
  bouncerctl rewrap --all --vault https://vault.example.org:8200 --dry-run
  bouncerctl rewrap --to-key \"$NEW\" protected-resources/payments-api/upstream-tls
  bouncerctl rewrap --all --from-key \"$OLD\" --to-key \"$NEW\" --dry-run
  bouncerctl rewrap --all --from-key \"$OLD\" --to-key \"$NEW\" --json | jq '.items[] | select(.result == \"failed\")'";

pub(super) const INVENTORY: &str = "\
The newest generation of each credential, by the key that can unwrap it. FORM says how it is wrapped:
direct (by KMS itself), envelope (under a data key that KMS wrapped), reference (a path in Vault) or
unusable (nothing that a bouncer could unwrap).

Examples:
  bouncerctl inventory
  bouncerctl inventory --key arn:aws:kms:ca-central-1:123456789012:key/abc-123
  bouncerctl inventory --json | jq '.keys[] | {key_id, n: (.secrets | length)}'";

pub(super) const REGISTER: &str = "\
Registering a logical path again makes a new generation: bouncers take it up within seconds, and
connections of the old one drain. The control plane stores the metadata as it is and cannot decrypt
it; what no bouncer could ever unwrap is stored with a warning, which is printed here.

A registration carries a random Idempotency-Key. If the connection breaks without an answer it is sent
once more, and happens once.

Examples:
  bouncerctl register --logical-path … --from wrapped.json --reason 'yearly rotation'
  bouncerctl register --logical-path protected-resources/payments-api/upstream-tls --from wrapped.json
  bouncerctl wrap … | bouncerctl register --logical-path … --from -
  bouncerctl register --logical-path … --provider vault_delegate --key-id team-a/payments \\
      --ciphertext-ref kv2:secret/payments-api";

pub(super) const STATUS: &str = "\
Examples:
  bouncerctl status
  bouncerctl status --output json | jq .
  until bouncerctl status >/dev/null; do sleep 5; done";

pub(super) const PROBE: &str = "\
Policy Bridge is the connection by which each bouncer gets its metadata and hands in its audit. For
each bouncer this shows the epoch it holds, how far that lags behind, how long ago it was heard of,
and, where something is wrong, which link is broken and what to do. The links, by their codes:
  dns            the control plane's name can't be resolved
  tcp            its address does not take the connection
  tls            what answers there does not speak TLS, or not for HTTP/2
  svid           an identity is missing, has ended, is not trusted, or is not the expected one
  authorization  the control plane does not let this identity speak for this bouncer
  service        the control plane takes the connection and does not serve it
  divergence     the resolver holds another policy than the control plane, by its digest
  lag            the resolver's policy is behind
  clock          the two clocks differ by more than 5 s
  offline        not connected, and from here it can't be told why
The control plane can't see why a resolver does not reach it (dns, tcp, tls, svid): ask the resolver
itself, with --socket on its node.

Exit codes: 0 all is well; 1 a bouncer is not healthy, a link is broken, or the token is refused; 3
the control plane or the resolver can't be asked, and the message says why: not reachable,
certificate not trusted, no answer.

Examples:
  bouncerctl probe
  bouncerctl probe --socket /run/bouncer/admin.sock
  bouncerctl probe --output json | jq '.items[] | select(.bridge.ok | not) | {name, link: .bridge.link}'";

pub(super) const SETTINGS: &str = "\
Examples:
  bouncerctl settings set --provider kms_envelope --notes 'Production CMK' \\
      --kms-key-arn arn:aws:kms:ca-central-1:123456789012:key/abc-123
  bouncerctl settings show";

pub(super) const REVOKE: &str = "\
Without --socket the control plane is told, and tells every bouncer: the newest generation is
disabled, as by `secrets disable`. Registering the path again makes a generation that may be used.

With --socket one resolver is told, on its node. That works with the control plane gone, and holds
whatever it says, also after a restart, until it is lifted there.

Either way cached decisions and the secrets in Envoy end, live HTTP streams that carry the credential
are cut off, and what is enabled again later uses no connection of before.

Examples:
  bouncerctl revoke protected-resources/payments-api/upstream-tls --reason 'key leaked, see INC-1'
  bouncerctl revoke protected-resources/payments-api/upstream-tls --socket /run/bouncer/admin.sock
  bouncerctl revoke protected-resources/payments-api/upstream-tls --socket /run/bouncer/admin.sock --lift";

pub(super) const SECRETS: &str = "\
A credential is named by its logical path or by its id. A change is made only if the credential is as
it was read: if somebody else changed it in between, it is refused (changed_meanwhile), and nothing of
theirs is overwritten.

Examples:
  bouncerctl secrets list --search payments --expires-within 30
  bouncerctl secrets list --key \"$OLD_KEY_ARN\" --enabled
  bouncerctl secrets show protected-resources/payments-api/upstream-tls
  bouncerctl secrets history protected-resources/payments-api/upstream-tls
  bouncerctl secrets disable protected-resources/payments-api/upstream-tls --reason 'see INC-1'
  bouncerctl secrets rollback protected-resources/payments-api/upstream-tls --to 7";

pub(super) const ROLLBACK: &str = "\
What an earlier generation held is registered as the next one: numbers only go up, and bouncers take
it up as any other registration. What is disabled stays disabled.

Where the AAD of that generation names its number (generation=N), KMS re-encrypts it under the same key
for the next number, inside KMS: that needs kms:ReEncryptFrom and kms:ReEncryptTo on the key, never
kms:Decrypt. What Vault's transit engine encrypted with generation=N must be encrypted anew.

Examples:
  bouncerctl secrets history protected-resources/payments-api/upstream-tls
  bouncerctl secrets rollback protected-resources/payments-api/upstream-tls --to 7 \\
      --reason 'generation 8 has the wrong chain'";

pub(super) const PROPOSALS: &str = "\
Where the control plane asks for a second person ([access] second_person), what gives a caller, a bouncer
or an upstream a credential is not made at once. The command that asked for it ends with exit code 4 and
names the proposal. Somebody else decides, within 7 days: not the bearer of a token that came from the one
it was proposed with, or of one that this came from. What only takes away is made at once.

Examples:
  bouncerctl proposals list
  bouncerctl proposals show 019a0000-0000-7000-8000-000000000001
  bouncerctl proposals approve 019a0000-0000-7000-8000-000000000001 --reason 'agreed in CHG-7'";

pub(super) const TOKENS: &str = "\
Roles: viewer reads; auditor also reads the audit; operator changes credentials, resources and bouncers;
admin also sets flags and the provider, and hands out tokens. Each may all that those before it may.

A token is made here, and the control plane is sent its SHA-256 alone, so that it is known again where an
answer is lost and the call is sent once more. It is shown once. With --out it goes to a new file that only
its owner may read; that file is made first, so that nothing is asked of the control plane if it can't be,
and stays where nobody knows whether the token was made: `whoami --token-file` tells. The token that
`bouncer-control-plane bootstrap` wrote is good for one exchange, and its file can be deleted after it.

Examples:
  bouncerctl tokens create admin --role admin --out admin.token --token-file bootstrap.token
  bouncerctl tokens create deploy --role operator --path-prefix 'protected-resources/payments-api/*' \\
      --expires-in-days 30 --out deploy.token
  bouncerctl tokens list --state live --role admin
  bouncerctl tokens revoke deploy";

pub(super) const WHOAMI: &str = "\
Examples:
  bouncerctl whoami
  bouncerctl whoami --json | jq -r .role";

pub(super) const EXPORT: &str = "\
The file holds what is registered: flags, settings, bouncers, credentials' metadata and protected
resources, in a fixed order. It holds no credential in clear and no token. `apply` of it to the same
control plane changes nothing. While the flag is off, settings and credentials can't be read, and are
left out.

Examples:
  bouncerctl export --out bouncer.yaml
  bouncerctl export | git diff --no-index bouncer.yaml -";

pub(super) const DIFF: &str = "\
Each line is a thing to create (+), to change (~) or, with --prune, to delete (-), with its fields. Of a
ciphertext_ref only the beginning and the SHA-256 are shown.

Exit codes: 0 no difference, 1 differences, 2 the files can't be meant, 3 not reachable.

Examples:
  bouncerctl diff -f bouncer.yaml
  bouncerctl diff -f bouncers.yaml -f payments.yaml --prune
  kustomize build . | bouncerctl diff -f -";

pub(super) const APPLY: &str = "\
The file is YAML, of one document or several:

  version: 1
  feature_flags:
    flags.crypto.dual_custody_intercept: true
  settings:
    provider: kms_envelope
    kms_key_arn: arn:aws:kms:ca-central-1:123456789012:key/abc-123
    notes: production
  bouncers:
  - name: payments-east
    spiffe_id: spiffe://example.org/bouncer/payments-east
  envelope_secrets:
  - logical_path: protected-resources/payments-api/upstream-tls
    provider: kms_envelope
    key_id: arn:aws:kms:ca-central-1:123456789012:key/abc-123
    ciphertext_ref: AQICAHh…
    aad: env=production,bouncer=payments-east
    certificate_chain: |            # may be left out
      -----BEGIN CERTIFICATE-----
      …
    enabled: true                   # unless given
  protected_resources:
  - name: payments-api
    bouncer: payments-east
    cluster: payments
    upstream: payments.internal:8443
    protocol: mtls
    logical_path: protected-resources/payments-api/upstream-tls
    callers: [spiffe://example.org/ns/shop/*]
    enabled: true                   # unless given

A section that is left out is left alone; so is what is registered and not in the file, unless --prune
is given, which deletes it (never a flag or the settings). Generations are not written down: other
content is registered as the next one, equal content is no change. With generation=N in the AAD it must
become generation N, and is refused otherwise.

Order: settings, bouncers, credentials, resources, flags that go on, deletions (resources before
bouncers). What is behind a flag that is off can be neither read nor changed. So one that goes on is
turned on first, and the rest is compared after it; one that goes off is turned off right behind the
changes of settings and credentials, which come first then, their deletions too.

Each change is made only if its thing is as the plan saw it. The first that fails ends it, but for what
is to be off, which is turned off all the same; what was done and what was not is told, and the next run
takes up what is left. Where there are too many calls (429), apply waits as long as Retry-After says, up
to 600 s in all, and goes on.

Where the control plane asks for a second person, what gives a credential is told as proposed, with its
id, and the exit code is 4. Another run while it waits does not propose it again.

Examples:
  bouncerctl apply -f bouncer.yaml --dry-run
  bouncerctl apply -f bouncer.yaml
  bouncerctl apply -f bouncers.yaml -f payments.yaml --prune --yes";

pub(super) const FLAGS: &str = "\
Everything under /v1/crypto answers 403, and every bouncer denies protected streams, until
flags.crypto.dual_custody_intercept is on. It is off by default.

Examples:
  bouncerctl flags list
  bouncerctl flags enable flags.crypto.dual_custody_intercept";

pub(super) const BOUNCERS: &str = "\
Examples:
  bouncerctl bouncers add payments-east --spiffe-id spiffe://example.org/bouncer/payments-east
  bouncerctl bouncers add payments-west --iam-role arn:aws:iam::123456789012:role/bouncer-payments-west
  bouncerctl bouncers list
  bouncerctl bouncers remove payments-east";

pub(super) const RESOURCES: &str = "\
Examples:
  bouncerctl resources add payments-api --bouncer payments-east --cluster payments \\
      --upstream payments.internal:8443 --caller 'spiffe://example.org/ns/shop/*' \\
      --logical-path protected-resources/payments-api/upstream-tls
  bouncerctl resources list
  bouncerctl resources remove payments-api";

pub(super) const AUDIT: &str = "\
Events name who called, what was decided and why, and never hold a credential or a payload.

Examples:
  bouncerctl audit list --outcome deny --limit 50
  bouncerctl audit tail --bouncer payments-east
  bouncerctl audit list --output json | jq -r '.items[].reason'
  bouncerctl audit export --out audit.jsonl
  bouncerctl audit verify audit.jsonl --bundle bundle.pem";

pub(super) const AUDIT_EXPORT: &str = "\
JSON lines hold everything that `audit verify` needs but the trust bundle. A range of time is
stretched to the signed checkpoints around it, so that it can be verified by itself; a chain in which
nothing happened is told of by its last checkpoint. CSV is for reading: cells that a spreadsheet would
take for formulas begin with an apostrophe. Where retention removes what was to come next, the export
breaks off, and is to be made again.

Examples:
  bouncerctl audit export --out audit.jsonl
  bouncerctl audit export --from 2026-11-01T00:00:00Z --to 2026-12-01T00:00:00Z --out november.jsonl
  bouncerctl audit export --format csv --bouncer payments-east --out payments-east.csv
  bouncerctl audit export | zstd >audit.jsonl.zst";

pub(super) const AUDIT_VERIFY: &str = "\
Each resolver chains its events and signs checkpoints over them with the key of its SVID. The control
plane stores them and has no such key: what it changes, leaves out, swaps or adds shows here. Archive
the trust bundles (`spire-server bundle show`), before they rotate; a bundle vouches for the SVIDs of
its own trust domain, at the time that each checkpoint was signed.

Name each bouncer's identity with --bouncer. Without it whoever has any SVID of the trust domain, the
control plane for one, could have signed a chain of its own; then look at the identities that are
shown. Who is named and signs must be in the export: a bouncer of which nothing is there is a fault, and
so is a control plane (--control-plane-id) that has signed nothing. A bouncer that enrols by an IAM role has no key that a bundle vouches for, and signs nothing:
name its role (--bouncer NAME=ARN), and its chain is shown as unsigned instead of broken. Its order
still holds, but whoever stores it could have made it.

Events behind the last checkpoint are not signed yet. A resolver signs at least each 1,000, and each
10 s while it is connected; more than that at a chain's end is a fault (--max-unsigned). But an export
that ends early, at a checkpoint or a little behind it, looks like an older one. So ask a resolver for its own head
first, and export after that: events that it was told are stored must be there.

Examples:
  bouncerctl audit verify audit.jsonl --bundle bundle.pem \\
      --bouncer payments-east=spiffe://example.org/bouncer/payments-east
  curl -s http://127.0.0.1:9901/audit/head >head.json && bouncerctl audit export --out audit.jsonl &&
      bouncerctl audit verify audit.jsonl --bundle bundle.pem --head head.json
  zstdcat audit.jsonl.zst | bouncerctl audit verify - --bundle example.org=2025.pem --bundle 2026.pem

Exit codes: 0 good, 1 broken (which chain, where and what), 2 a file or option can't be used.";

pub(super) const COMPLETION: &str = "\
Examples:
  bouncerctl completion bash >/etc/bash_completion.d/bouncerctl
  bouncerctl completion zsh >\"${fpath[1]}/_bouncerctl\"
  bouncerctl completion fish >~/.config/fish/completions/bouncerctl.fish";
