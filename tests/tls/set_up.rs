//! What a user is told who has set it up wrongly: what is wrong, in which file, and what to
//! do about it.

use std::fs;
use std::path::{Path, PathBuf};

use bt_lite::transport::auth::{AuthSetupError, Authenticator, Ca, Identity, Secret, Trust};
use bt_lite::transport::{AuthError, TlsTransport};
use bt_lite::{Addr, MemoryNetwork, Transport, TransportError};
use futures::StreamExt;
use rcgen::{ExtendedKeyUsagePurpose, KeyPair};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;

use crate::authority::{Authority, Validity};
use crate::warnings::warned;

struct Files {
    dir: tempfile::TempDir,
    authority: Authority,
    key: KeyPair,
}

impl Files {
    fn new() -> Self {
        let files = Self {
            dir: tempfile::tempdir().unwrap(),
            authority: Authority::new("the cluster"),
            key: KeyPair::generate().unwrap(),
        };
        files.write("ca.pem", files.authority.pem());
        files.write("cert.pem", files.certificate());
        files.write("key.pem", files.key.serialize_pem());
        files
    }

    fn certificate(&self) -> String {
        self.authority.sign(&self.key, 1, Validity::Now)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn write(&self, name: &str, bytes: impl AsRef<[u8]>) {
        write(&self.path(name), bytes.as_ref());
    }

    fn set_up(&self) -> Result<Authenticator, AuthSetupError> {
        let identity = Identity::from_pem_files(self.path("cert.pem"), self.path("key.pem"))?;
        Authenticator::new(identity, Trust::Ca(Ca::from_pem_file(self.path("ca.pem"))))
    }

    /// Asserts that a file with this in it is an error that names the file and says this.
    fn expect(&self, name: &str, bytes: impl AsRef<[u8]>, parts: &[&str]) {
        let before = fs::read(self.path(name)).unwrap();
        self.write(name, bytes);
        let error = self.set_up().expect_err("it cannot be used");
        let (text, path) = (error.to_string(), self.path(name));
        assert!(text.contains(&path.display().to_string()), "{text}");
        for part in parts {
            assert!(text.contains(part), "no {part:?}: {text}");
        }
        self.write(name, before);
    }
}

fn write(path: &Path, bytes: &[u8]) {
    fs::write(path, bytes).unwrap();
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        fs::set_permissions(path, PermissionsExt::from_mode(0o600)).unwrap();
    }
}

#[test]
fn files_with_something_else_in_them_are_named_with_what_is_in_them() {
    let files = Files::new();
    files.set_up().unwrap();
    let (certificate, key) = (files.certificate(), files.key.serialize_pem());
    let der = CertificateDer::from_pem_slice(certificate.as_bytes()).unwrap();
    for name in ["ca.pem", "cert.pem"] {
        files.expect(name, "", &["empty"]);
        files.expect(name, "nonsense", &["no PEM", "BEGIN CERTIFICATE"]);
        files.expect(name, &der, &["DER", "openssl x509 -inform DER"]);
        files.expect(name, &key, &["PRIVATE KEY", "no CERTIFICATE"]);
        let cut = &certificate[..certificate.len() / 2];
        files.expect(name, cut, &["-----END CERTIFICATE-----"]);
        let nonsense = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
        files.expect(name, nonsense, &["certificate 1"]);
    }
    files.expect("key.pem", "", &["empty"]);
    files.expect("key.pem", &certificate, &["CERTIFICATE", "no PRIVATE KEY"]);
    files.expect(
        "key.pem",
        files.key.serialize_der(),
        &["DER", "openssl pkey"],
    );
    let locked =
        "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n";
    files.expect("key.pem", locked, &["passphrase", "openssl pkey"]);
    let nonsense = "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n";
    files.expect("key.pem", nonsense, &["key"]);
}

#[test]
fn block_that_would_be_passed_over_is_told_with_its_line() {
    let files = Files::new();
    let certificate = files.certificate();
    let whole = certificate.trim_end();
    let told = ["line", "-----BEGIN CERTIFICATE-----", "own line"];
    for name in ["ca.pem", "cert.pem"] {
        // As `cat` joins files whose last line has no end.
        files.expect(name, format!("{whole}{certificate}"), &told);
        files.expect(name, format!("\u{feff}{certificate}{certificate}"), &told);
        files.expect(name, format!("{certificate}  {certificate}"), &told);
        files.expect(name, format!("\u{feff}{certificate}"), &told);
    }
    let key = files.key.serialize_pem();
    files.expect(
        "key.pem",
        format!("# the key: {key}"),
        &["PRIVATE KEY", "own line"],
    );
    files.set_up().unwrap();
}

#[test]
fn key_whose_lines_were_lost_is_told_without_any_of_it() {
    let files = Files::new();
    let key = files.key.serialize_pem();
    let secret: String = key.lines().filter(|line| !line.starts_with('-')).collect();
    // As it comes out of variables of the environment and of forms.
    for between in ["", " ", "\\n", "\t"] {
        let lost = key.replace('\n', between);
        for text in [
            lost.clone(),
            lost.trim_end().to_owned(),
            format!(" {lost}"),
            format!("{key}{lost}"),
            key.replacen('\n', between, 1),
            key.replacen("-----\n", between, 1),
            key.replace("-----END", "----END"),
            key.replace("-----END", "-----"),
            key.replace("PRIVATE KEY-----\n", ""),
        ] {
            let Err(error) = Identity::from_pem(&files.certificate(), &text) else {
                continue;
            };
            let said = format!("{error} {error:?}");
            for at in 0..secret.len() - 8 {
                let part = &secret[at..at + 8];
                assert!(!said.contains(part), "{part} of the key is in: {said}");
            }
        }
        files.expect("key.pem", lost, &["PRIVATE KEY", "own line"]);
    }
}

#[test]
fn lines_around_a_block_and_other_ends_of_lines_do_no_harm() {
    let files = Files::new();
    let (ca, certificate) = (files.authority.pem(), files.certificate());
    let key = files.key.serialize_pem();
    for (name, text) in [("ca.pem", ca), ("cert.pem", certificate), ("key.pem", key)] {
        let other = "-----BEGIN SOMETHING ELSE-----\nAAAA\n-----END SOMETHING ELSE-----\n";
        for text in [
            text.replace('\n', "\r\n"),
            text.replace('\n', "\r"),
            text.trim_end().to_owned(),
            format!("Subject: CN = us\n\n{text}\nthe end"),
            format!("{other}{text}{other}"),
        ] {
            files.write(name, &text);
            files
                .set_up()
                .unwrap_or_else(|error| panic!("{error}: {text}"));
        }
    }
}

/// A certificate as OpenSSL 3.0 makes it without a file of extensions.
const VERSION_1: &str = "\
-----BEGIN CERTIFICATE-----
MIIBGDCBvwIUNbxRE62CU5WK3fnN5+7cJop54SwwCgYIKoZIzj0EAwIwDjEMMAoG
A1UEAwwDb2xkMCAXDTI2MTEzMDA5NDMyM1oYDzIxMjYxMTA2MDk0MzIzWjAOMQww
CgYDVQQDDANvbGQwWTATBgcqhkjOPQIBBggqhkjOPQMBBwNCAASVPbpJsvvmawEt
DQZJUNT2uO0scJJYa4NXedGh7bdAkgRfTfX78IwbJVqit3T7ae8bKDQCSK8P3StS
fAKWvwG5MAoGCCqGSM49BAMCA0gAMEUCIQC3W1HxnUbx61070+xox521l0rxqQiW
yomAfD+f9tCOfgIgZH3WXB0SOGzW0ijwseF0RcX88PFBNh0ndyJHuxnZC30=
-----END CERTIFICATE-----
";

#[test]
fn certificate_of_version_1_is_told_with_how_to_make_another_one() {
    let files = Files::new();
    let what = ["certificate 1", "version 3", "openssl x509 -req -extfile"];
    files.expect("cert.pem", VERSION_1, &what);
}

/// A key of a kind that is not used here.
const ED448: &str = "\
-----BEGIN PRIVATE KEY-----
MEcCAQAwBQYDK2VxBDsEOV1oR5ED8v2mPXZ6xcDsRtXrjTCc1TqpNOaQ6R92rqAI
PpfdjTTV5aolnNsIh6dj4/htGBK8bl4TOA==
-----END PRIVATE KEY-----
";

#[test]
fn key_of_a_kind_that_is_not_used_is_told_with_those_that_are() {
    let files = Files::new();
    files.expect("key.pem", ED448, &["Ed25519", "P-256", "P-384", "RSA"]);
}

#[test]
fn key_that_does_not_fit_its_certificate_is_told_with_both_files() {
    let files = Files::new();
    let other = KeyPair::generate().unwrap().serialize_pem();
    files.expect(
        "key.pem",
        other,
        &["is not that of the certificate", "cert.pem"],
    );
}

#[test]
fn expired_certificate_is_told_with_its_file_its_date_and_the_clock() {
    let files = Files::new();
    let over = files.authority.sign(&files.key, 1, Validity::Over);
    files.expect("cert.pem", over, &["2021-01-01", "renew", "clock"]);
    let old = Authority::valid("the old cluster", Validity::Over);
    files.expect("ca.pem", old.pem(), &["CN=the old cluster", "2021-01-01"]);
}

#[test]
fn certificate_that_others_would_refuse_is_warned_of_at_once() {
    let authority = Authority::new("the cluster");
    let told = |identity: Identity| {
        let trust = Trust::Ca(authority.ca());
        warned(|| Authenticator::new(identity, trust).unwrap()).0
    };
    assert_eq!(
        told(authority.member(1, Validity::Now)),
        Vec::<String>::new()
    );
    for (identity, part) in [
        (
            Authority::new("another").member(1, Validity::Now),
            "authorities",
        ),
        (authority.member(1, Validity::NotYet), "not valid yet"),
        (
            used_for(&authority, ExtendedKeyUsagePurpose::CodeSigning),
            "clientAuth",
        ),
    ] {
        let told = told(identity);
        assert_eq!(told.len(), 1, "{told:?}");
        assert!(told[0].contains(part), "{told:?}");
    }
}

fn used_for(authority: &Authority, usage: ExtendedKeyUsagePurpose) -> Identity {
    let key = KeyPair::generate().unwrap();
    let certificate = authority.sign_for(&key, 3, Validity::Now, &[usage]);
    Identity::from_pem(&certificate, &key.serialize_pem()).unwrap()
}

#[tokio::test(start_paused = true)]
async fn certificate_for_another_use_is_told_to_both_sides() {
    let authority = Authority::new("the cluster");
    let network = MemoryNetwork::new(1);
    let tls = |name: &str, identity| {
        let auth = Authenticator::new(identity, Trust::Ca(authority.ca())).unwrap();
        TlsTransport::new(network.endpoint(name), auth)
    };
    // It is for clients alone.
    let only = tls(
        "only",
        used_for(&authority, ExtendedKeyUsagePurpose::ClientAuth),
    );
    let other = tls("other", authority.member(4, Validity::Now));
    let addr: Addr = "memory:only".parse().unwrap();
    let mut listener = only.listen(&addr).await.unwrap();
    tokio::spawn(async move { while listener.accept().await.is_ok() {} });
    let Err(TransportError::Auth(error)) = other.connect(&addr).await else {
        panic!("it is let in");
    };
    assert_eq!(error, AuthError::WrongUse);
    assert!(error.to_string().contains("serverAuth"), "{error}");

    // It is for servers alone.
    let only = tls(
        "server",
        used_for(&authority, ExtendedKeyUsagePurpose::ServerAuth),
    );
    let addr: Addr = "memory:other".parse().unwrap();
    let mut listener = other.listen(&addr).await.unwrap();
    tokio::spawn(async move { while listener.accept().await.is_ok() {} });
    let told = match only.connect(&addr).await {
        Err(error) => error,
        Ok(mut connection) => connection.stream.next().await.unwrap().unwrap_err(),
    };
    let TransportError::Auth(AuthError::Refused { reason }) = told else {
        panic!("{told}");
    };
    assert!(reason.contains("clientAuth"), "{reason}");
}

#[test]
fn secret_that_is_none_is_told_with_its_file() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("secret");
    for (text, part) in [
        ("correct horse battery staple", "openssl rand -hex 32"),
        ("", "openssl rand -hex 32"),
        ("abcd", "16"),
    ] {
        write(&path, text.as_bytes());
        let told = Secret::from_file(&path).unwrap_err().to_string();
        assert!(told.contains(&path.display().to_string()), "{told}");
        assert!(told.contains(part), "{told}");
    }
    write(&path, &[0xff; 40]);
    let told = Secret::from_file(&path).unwrap_err().to_string();
    assert!(told.contains(&path.display().to_string()), "{told}");
}

#[cfg(unix)]
#[test]
fn private_file_that_others_can_read_or_own_is_refused_with_what_to_do() {
    use std::os::unix::fs::PermissionsExt;
    let files = Files::new();
    let path = files.path("key.pem");
    fs::set_permissions(&path, PermissionsExt::from_mode(0o644)).unwrap();
    let text = files.set_up().err().unwrap().to_string();
    assert!(
        text.contains(&format!("chmod 600 {}", path.display())),
        "{text}"
    );
    fs::set_permissions(&path, PermissionsExt::from_mode(0o600)).unwrap();
    // Only root can give a file away.
    if std::os::unix::fs::chown(&path, Some(12_345), None).is_err() {
        return;
    }
    let error = files.set_up().expect_err("it is of somebody else");
    assert!(
        matches!(error, AuthSetupError::ForeignOwner { owner: 12_345, .. }),
        "{error}"
    );
    let text = error.to_string();
    assert!(text.contains(&path.display().to_string()), "{text}");
    assert!(text.contains("chown"), "{text}");
}
