"""Signatures: what they cover, whose count, and what every mistake is told."""

import json
import os
import shutil
import stat
import subprocess
import threading

import msgspec
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

import ghostdeploy as gd
from ghostdeploy.bundle import signature as sg
from ghostdeploy.bundle.folder import open_bundle
from ghostdeploy.bundle.manifest import encode
from ghostdeploy.bundle.placing import foreign_in
from ghostdeploy.supply import sign as signing
from tests.commands import assert_one_sentence, run
from tests.conftest import require_program


@pytest.fixture
def bundle(tiny_bundle, tmp_path):
    return shutil.copytree(tiny_bundle("onnx"), tmp_path / "bundle")


@pytest.fixture
def key(tmp_path):
    signing.make_key(tmp_path / "key")
    return tmp_path / "key"


def public(key):
    return key.with_name(key.name + ".pub")


def require(bundle, *keys, at_least=None):
    return sg.Trust([public(key) for key in keys], at_least).require(open_bundle(bundle))


def edit(bundle, change):
    path = bundle / sg.SIGNATURES
    document = json.loads(path.read_text("utf-8"))
    change(document)
    path.write_text(json.dumps(document), "utf-8")


def test_a_pair_is_made_signs_and_verifies_from_the_command_line(bundle, tmp_path, capsys):
    made = run(capsys, "sign", bundle, "--new-key", tmp_path / "new", "--release", "1.4.0")
    assert made.code == 0, made.err
    assert stat.S_IMODE((tmp_path / "new").stat().st_mode) == 0o600
    seen = run(
        capsys, "verify", bundle, "--require-signature", "--key", tmp_path / "new.pub", "--at-least", "1.4", "--json"
    )
    assert seen.code == 0, seen.err
    signed = seen.document[0]["signature"]
    assert signed["statement"]["release"] == "1.4.0"
    assert signed["statement"]["digest"] == open_bundle(bundle).manifest.digest


def test_the_signature_is_plain_ed25519_over_the_documented_bytes(bundle, key):
    made = signing.sign(bundle, key, release="2.1")
    statement = made.statement
    fields = f'{{"digest":"{statement.digest}","release":"2.1","signed_at":"{statement.signed_at}"}}'
    text = f"ghostdeploy signature 1\n{fields}"
    loaded = serialization.load_pem_private_key(key.read_bytes(), None)
    assert loaded.sign(text.encode()).hex() == sg.b64decode(made.ed25519).hex()


def test_an_app_requires_a_signature(bundle, key):
    trust = gd.Trust([public(key)])
    with pytest.raises(gd.errors.BundleError, match="no signature by key"):
        gd.load(bundle, trust=trust)
    signing.sign(bundle, key)
    with gd.load(bundle, trust=trust, verify=False) as model:
        assert model.info()["engine"]
    weights = bundle / "model.onnx"
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)
    with pytest.raises(gd.errors.BundleError, match="altered"):  # verify=False saves no hash where one is signed
        gd.load(bundle, trust=trust, verify=False)


def test_a_manifest_that_was_sealed_again_is_not_what_was_signed(bundle, key):
    signing.sign(bundle, key)
    manifest = open_bundle(bundle).manifest
    (bundle / "manifest.json").write_bytes(encode(msgspec.structs.replace(manifest, name="other")))
    with pytest.raises(gd.errors.BundleError, match="changed after it was signed"):
        require(bundle, key)


@pytest.mark.parametrize(
    "change",
    [
        lambda one: one["statement"].update(release="9.9"),
        lambda one: one["statement"].update(digest="0" * 64),
        lambda one: one["statement"].update(signed_at="1970-01-01T00:00:00+00:00"),
        lambda one: one.update(ed25519=one["ed25519"][:-4] + "AAA="),
        lambda one: one.update(ed25519="no base64"),
        lambda one: one.update(ed25519=""),
    ],
)
def test_whatever_is_changed_in_a_signature_makes_it_wrong(bundle, key, change):
    signing.sign(bundle, key, release="1.0")
    edit(bundle, lambda document: change(document["signatures"][0]))
    with pytest.raises(gd.errors.BundleError, match="wrong signature"):
        require(bundle, key)


def test_a_signature_under_the_name_of_a_trusted_key_is_wrong(bundle, key, tmp_path):
    signing.make_key(tmp_path / "thief")
    signing.sign(bundle, tmp_path / "thief")
    name = sg.key_id(sg.public_key(public(key)))
    edit(bundle, lambda document: document["signatures"][0].update(key=name))
    with pytest.raises(gd.errors.BundleError, match="wrong signature"):
        require(bundle, key)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (b"", "holds no signatures"),
        (b"[]", "holds no signatures"),
        (b"\xff\xfe", "holds no signatures"),
        (b"[" * 50_000, "holds no signatures"),
        (b'{"schema": 2, "signatures": []}', "schema 2, expected 1"),
        (b" " * (sg.MAX_FILE + 1), "expected at most"),
        (b'{"schema": 1, "signatures": []}', "no signature by key"),
    ],
)
def test_a_damaged_file_is_one_sentence(bundle, key, text, words):
    (bundle / sg.SIGNATURES).write_bytes(text)
    with pytest.raises(gd.errors.BundleError, match=words):
        require(bundle, key)


def test_a_link_is_no_file_of_signatures(bundle, key, tmp_path):
    signing.sign(bundle, key)
    (bundle / sg.SIGNATURES).rename(tmp_path / "elsewhere")
    (bundle / sg.SIGNATURES).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(gd.errors.BundleError, match="is a link"):
        require(bundle, key)


def test_a_rollback_is_refused_and_releases_are_numbers(bundle, key):
    signing.sign(bundle, key, release="1.10")
    assert require(bundle, key, at_least="1.9").statement.release == "1.10"
    assert require(bundle, key, at_least="1.10.0")
    with pytest.raises(gd.errors.BundleError, match=r"signed as release 1\.10, expected at least 1\.11"):
        require(bundle, key, at_least="1.11")
    signing.sign(bundle, key)
    with pytest.raises(gd.errors.BundleError, match="signed as no release"):
        require(bundle, key, at_least="0")


@pytest.mark.parametrize("release", ["", "1.", "v1", "1.2.3.4.5", "01", "1.4.0\n", "-1", "1" * 12, "١"])
def test_what_is_no_release_is_told(bundle, key, release):
    with pytest.raises(gd.errors.UsageError, match="no release"):
        signing.sign(bundle, key, release=release)
    assert not (bundle / sg.SIGNATURES).exists()


def test_keys_follow_each_other(bundle, key, tmp_path):
    signing.make_key(tmp_path / "next")
    signing.sign(bundle, key, release="1.0")
    signing.sign(bundle, tmp_path / "next", release="1.0")
    signing.sign(bundle, key, release="1.1")
    assert [one.statement.release for one in sg.read(bundle)] == ["1.0", "1.1"]
    assert require(bundle, tmp_path / "next").key != require(bundle, key).key
    assert require(bundle, tmp_path / "next", key, at_least="1.1").statement.release == "1.1"


def test_nobody_signs_without_end(bundle, tmp_path):
    for number in range(sg.MOST):
        signing.make_key(tmp_path / f"k{number}")
        signing.sign(bundle, tmp_path / f"k{number}")
    signing.make_key(tmp_path / "last")
    with pytest.raises(gd.errors.UsageError, match="16 signatures"):
        signing.sign(bundle, tmp_path / "last")
    assert len(sg.read(bundle)) == sg.MOST


def test_eight_who_sign_at_once_all_count(bundle, tmp_path):
    keys = [tmp_path / f"k{number}" for number in range(8)]
    for one in keys:
        signing.make_key(one)
    threads = [threading.Thread(target=signing.sign, args=(bundle, one)) for one in keys]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(require(bundle, one) for one in keys)


def test_keys_of_other_programs_are_taken(bundle, tmp_path):
    for program in ("openssl", "ssh-keygen"):
        require_program(program)
    openssl, ssh, locked = (tmp_path / name for name in ("openssl", "ssh", "locked"))
    subprocess.run(["openssl", "genpkey", "-algorithm", "ed25519", "-out", openssl], check=True)
    subprocess.run(["openssl", "pkey", "-in", openssl, "-pubout", "-out", public(openssl)], check=True)
    openssl.chmod(0o600)
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", ssh], check=True)
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "opensesame", "-f", locked], check=True)
    for one in (openssl, ssh):
        signing.sign(bundle, one)
        assert require(bundle, one)
    with pytest.raises(gd.errors.BadInput, match="is encrypted") as refused:
        signing.sign(bundle, locked)
    assert refused.value.hint == f"set {signing.PASSWORD}"


@pytest.mark.parametrize("password", ["opensesame", "wrong"])
def test_a_locked_key_is_opened_by_the_environment(bundle, tmp_path, monkeypatch, password):
    require_program("ssh-keygen")
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "opensesame", "-f", tmp_path / "locked"], check=True)
    monkeypatch.setenv(signing.PASSWORD, password)
    if password == "wrong":
        with pytest.raises(gd.errors.BadInput, match="cannot be opened with"):
            signing.sign(bundle, tmp_path / "locked")
    else:
        signing.sign(bundle, tmp_path / "locked")
        assert require(bundle, tmp_path / "locked")


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o666])
def test_a_key_that_others_read_signs_nothing(bundle, key, mode, capsys):
    key.chmod(mode)
    answer = run(capsys, "sign", bundle, "--key", key)
    assert_one_sentence(answer, 3, f"has mode 0{mode:o}, expected 0600", f"chmod 600 {key}")
    assert not (bundle / sg.SIGNATURES).exists()


def test_a_key_is_never_replaced(key, capsys):
    before = key.read_bytes()
    assert_one_sentence(run(capsys, "sign", "--new-key", key), 2, "exists already")
    assert key.read_bytes() == before


def of_rsa(path):
    private = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    encoding = serialization.Encoding.PEM
    kinds = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    path.write_bytes(private.private_bytes(encoding, *kinds))
    public(path).write_bytes(
        private.public_key().public_bytes(encoding, serialization.PublicFormat.SubjectPublicKeyInfo)
    )


def of_garbage(path):
    path.write_bytes(b"\0garbage")
    public(path).write_bytes(b"ssh-ed25519 garbage")


def of_nothing(path):
    path.write_bytes(b"")
    public(path).write_bytes(b"")


@pytest.mark.parametrize("make", [of_rsa, of_garbage, of_nothing])
def test_what_is_no_key_is_told(bundle, tmp_path, make):
    make(tmp_path / "k")
    (tmp_path / "k").chmod(0o600)
    with pytest.raises(gd.errors.BadInput, match="no Ed25519 private key"):
        signing.sign(bundle, tmp_path / "k")
    with pytest.raises(gd.errors.BadInput, match="no Ed25519 public key"):
        require(bundle, tmp_path / "k")


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (("sign", "B"), 2, "sign needs --key"),
        (("sign", "--key", "K"), 2, "sign needs a bundle"),
        (("sign", "B", "--key", "K", "--new-key", "N"), 2, "exclude each other"),
        (("sign", "B", "--key", "absent"), 3, "key absent does not exist"),
        (("sign", "absent", "--key", "K"), 3, "bundle absent does not exist"),
        (("verify", "B", "--key", "K.pub"), 2, "need --require-signature"),
        (("verify", "B", "--at-least", "1"), 2, "need --require-signature"),
        (("verify", "B", "--require-signature"), 2, "needs --key"),
        (("verify", "B", "--require-signature", "--key", "K"), 3, "is a private key, expected the public one"),
        (("verify", "B", "--require-signature", "--key", "K.pub"), 3, "has no signature by key"),
        (("verify", "B", "--require-signature", "--key", "K.pub", "--at-least", "new"), 2, "is no release"),
        (("verify", "B", "--require-signature", "--key", "K.pub", "--on", "ssh://x"), 3, "has no signature by key"),
    ],
)
def test_a_mistake_is_one_sentence(bundle, key, words, code, said, capsys):
    names = {"B": bundle, "K": key, "K.pub": public(key)}
    assert_one_sentence(run(capsys, *(names.get(word, word) for word in words)), code, said)


def test_a_damaged_bundle_is_not_signed(bundle, key):
    (bundle / "labels.txt").write_text("other\n", "utf-8")
    with pytest.raises(gd.errors.BundleError):
        signing.sign(bundle, key)
    assert not (bundle / sg.SIGNATURES).exists()


def test_one_bad_bundle_does_not_keep_the_others_from_being_signed(bundle, key, tmp_path, capsys):
    answer = run(capsys, "sign", tmp_path / "absent", bundle, "--key", key, "--json")
    assert answer.code == 3
    assert [("error" in one) for one in answer.document] == [True, False]
    assert require(bundle, key)


def test_a_folder_that_cannot_be_written_is_told(bundle, key):
    folder = bundle.parent
    if os.geteuid() == 0:  # root writes everywhere: a file stands where the workspace would
        bundle.joinpath(sg.SIGNATURES).mkdir()
        with pytest.raises(gd.errors.BundleError, match="is a folder"):
            signing.sign(bundle, key)
        return
    folder.chmod(0o500)
    try:
        with pytest.raises(gd.errors.OutputError):
            signing.sign(bundle, key)
    finally:
        folder.chmod(0o700)


def test_a_signed_bundle_can_be_replaced_and_moves_with_its_signature(bundle, key):
    signing.sign(bundle, key)
    assert foreign_in(bundle) == []
    moved = bundle.rename(bundle.with_name("moved"))
    assert require(moved, key)


def test_a_wrong_signature_does_not_spoil_the_right_one_of_another_key(bundle, key, tmp_path):
    signing.make_key(tmp_path / "other")
    signing.sign(bundle, key, release="9.0")
    signing.sign(bundle, tmp_path / "other", release="1.0")
    edit(bundle, lambda document: document["signatures"][0]["statement"].update(release="9.9"))
    assert require(bundle, key, tmp_path / "other").statement.release == "1.0"
    with pytest.raises(gd.errors.BundleError, match="expected at least 2"):
        require(bundle, key, tmp_path / "other", at_least="2")


def test_one_key_may_be_given_as_text(bundle, key):
    signing.sign(bundle, key)
    with gd.load(bundle, trust=gd.Trust(str(public(key)))) as model:
        assert model.info()["engine"]
