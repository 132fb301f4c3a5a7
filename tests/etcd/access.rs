//! Passwords, tokens and certificates, against a real etcd.

use crate::common::{EtcdServer, Folder, wait_for};
use crate::{LONG, patiently};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
};
use std::fs;
use std::net::TcpListener;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};
use twincache::cluster::options::EtcdOptions;
use twincache::cluster::{Etcd, EtcdError, WatchEnd, WatchEvent};
use ureq::tls::{Certificate, ClientCert, PrivateKey, RootCerts, TlsConfig};

/// Tells etcd something that the client has no use for.
fn tell(url: &str, path: &str, body: &str) {
    let answer = ureq::post(format!("{url}/v3/auth/{path}")).send(body).expect("an answer");
    assert_eq!(answer.status(), 200, "{path}");
}

/// From now on it lets in root, and `app` with the password `secret`, to the keys between `/a/` and `/b/`.
fn close(tell: impl Fn(&str, &str)) {
    tell("user/add", r#"{"name":"root","password":"root"}"#);
    tell("role/add", r#"{"name":"root"}"#);
    tell("user/grant", r#"{"user":"root","role":"root"}"#);
    tell("user/add", r#"{"name":"app","password":"secret"}"#);
    tell("role/add", r#"{"name":"app"}"#);
    let range = r#"{"permType":"READWRITE","key":"L2Ev","range_end":"L2Iv"}"#;
    tell("role/grant", &format!(r#"{{"name":"app","perm":{range}}}"#));
    tell("user/grant", r#"{"user":"app","role":"app"}"#);
    tell("enable", "{}");
}

/// A client with a user and a password.
fn user(server: &EtcdServer, name: &str, password: &str) -> Etcd {
    user_of(server.options(), name, password)
}

fn user_of(options: EtcdOptions, name: &str, password: &str) -> Etcd {
    let folder = Folder::new();
    let file = PathBuf::from(folder.file("password"));
    fs::write(&file, format!("{password}\nnot this\n")).unwrap();
    Etcd::new(&EtcdOptions { user: Some((name.into(), file)), ..options }).expect("a client")
}

#[test]
fn a_user_is_let_in_with_a_password() {
    let Some(mut server) = EtcdServer::start(&["--bcrypt-cost=4"]) else { return };
    let mut early = user(&server, "app", "secret");
    for _ in 0..2 {
        early.put("/a/1", b"x", LONG).expect("no password is asked for yet");
    }
    close(|path, body| tell(&server.url, path, body));
    let denied = |result: Result<i64, EtcdError>| assert!(matches!(result, Err(EtcdError::Denied(_))), "{result:?}");
    denied(server.client().put("/a/1", b"y", LONG));
    denied(user(&server, "app", "wrong").put("/a/1", b"y", LONG));
    denied(user(&server, "nobody", "secret").put("/a/1", b"y", LONG));
    let mut app = user(&server, "app", "secret");
    denied(app.put("/c/1", b"y", LONG));
    let revision = app.put("/a/1", b"y", LONG).expect("its own keys");
    early.put("/a/2", b"x", LONG).expect("a password is asked for now");
    assert_eq!(app.watch("/a/", revision, LONG, |_| false), Ok(WatchEnd::Stopped));
    let watched = app.watch("/c/", 1, LONG, |_| panic!("not for it"));
    assert!(matches!(watched, Err(EtcdError::Denied(_))), "{watched:?}");

    // etcd forgets the tokens that it gave.
    server.restart();
    app.put("/a/1", b"z", LONG).or_else(|_| app.put("/a/1", b"z", LONG)).expect("a new token");
    let list = wait_for("a new token", || early.list("/a/", LONG).ok());
    assert_eq!(list.items.len(), 2);
}

/// A CA, and files with what it signed.
struct Authority {
    folder: Folder,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    fn new(name: &str) -> Authority {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new([]).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let folder = Folder::new();
        fs::write(folder.file("ca"), params.self_signed(&key).unwrap().pem()).unwrap();
        Authority { folder, issuer: Issuer::new(params, key) }
    }

    fn file(&self, name: &str) -> PathBuf {
        self.folder.file(name).into()
    }

    /// A certificate for these hosts in `NAME.crt`, and its key in `NAME.key`.
    fn sign(&self, name: &str, hosts: &[&str]) {
        self.sign_as(name, hosts, DnType::OrganizationName);
    }

    /// As [`Authority::sign`]; this part of the certificate's own name is `twincache`.
    fn sign_as(&self, name: &str, hosts: &[&str], part: DnType) {
        let key = KeyPair::generate().unwrap();
        let hosts: Vec<String> = hosts.iter().map(|host| (*host).to_owned()).collect();
        let mut params = CertificateParams::new(hosts).unwrap();
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(part, "twincache");
        // etcd's gateway shows the server's certificate to etcd.
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        fs::write(self.file(&format!("{name}.crt")), certificate.pem()).unwrap();
        fs::write(self.file(&format!("{name}.key")), key.serialize_pem()).unwrap();
    }

    /// An etcd that has the certificate of that name, and wants one of ours.
    fn server(&self, name: &str) -> EtcdServer {
        let file = |name: &str| self.folder.file(name);
        let words = ["--client-cert-auth", "--trusted-ca-file", &file("ca")];
        let own = ["--cert-file", &file(&format!("{name}.crt")), "--key-file", &file(&format!("{name}.key"))];
        EtcdServer::start_secure(&[&words[..], &own].concat()).expect("it is installed")
    }

    /// A plain HTTP client that shows the certificate of that name.
    fn agent(&self, name: &str) -> ureq::Agent {
        let read = |name: &str| fs::read(self.file(name)).unwrap();
        let certificate = Certificate::from_pem(&read(&format!("{name}.crt"))).unwrap();
        let key = PrivateKey::from_pem(&read(&format!("{name}.key"))).unwrap();
        let ca = Certificate::from_pem(&read("ca")).unwrap();
        let tls = TlsConfig::builder()
            .root_certs(RootCerts::new_with_certs(&[ca]))
            .client_cert(Some(ClientCert::new_with_certs(&[certificate], key)))
            .unversioned_rustls_crypto_provider(Arc::new(rustls::crypto::ring::default_provider()));
        ureq::Agent::config_builder().tls_config(tls.build()).build().into()
    }

    /// The options of a client that believes this CA and shows the certificate of that name.
    fn options(&self, url: &str, name: &str) -> EtcdOptions {
        EtcdOptions {
            endpoints: vec![url.to_owned()],
            ca: Some(self.file("ca")),
            cert: Some(self.file(&format!("{name}.crt"))),
            key: Some(self.file(&format!("{name}.key"))),
            user: None,
        }
    }
}

#[test]
fn both_sides_show_certificates() {
    if !EtcdServer::is_installed() {
        return;
    }
    let (ours, other) = (Authority::new("ours"), Authority::new("other"));
    ours.sign("server", &["127.0.0.1"]);
    ours.sign("elsewhere", &["10.0.0.1", "localhost"]);
    ours.sign("client", &["client"]);
    other.sign("client", &["client"]);
    let server = ours.server("server");
    let good = ours.options(&server.url, "client");
    let put = |options: &EtcdOptions| Etcd::new(options).expect("good files").put("k", b"v", LONG);
    let mut etcd = Etcd::new(&good).unwrap();
    let revision = etcd.put("k", b"v", LONG).unwrap();
    let quiet = patiently(Duration::from_millis(100), |idle| {
        let mut opened = 0;
        etcd.watch("k", revision + 1, idle, |event| {
            assert_eq!(event, WatchEvent::UpTo(revision));
            opened += 1;
            opened < 3
        })
    });
    assert_eq!(quiet, Ok(WatchEnd::Stopped), "silence is told from the end");

    let stranger = EtcdOptions { ca: good.ca.clone(), ..other.options(&server.url, "client") };
    put(&stranger).expect_err("a certificate of somebody else's");
    put(&EtcdOptions { cert: None, key: None, ..good.clone() }).expect_err("no certificate");
    let error = put(&EtcdOptions { ca: Some(other.file("ca")), ..good.clone() }).unwrap_err();
    assert!(matches!(&error, EtcdError::Refused(why) if why.contains("UnknownIssuer")), "{error:?}");
    let error = put(&ours.options(&server.url.replace("https:", "http:"), "client")).unwrap_err();
    assert_eq!(error.to_string().lines().count(), 1, "{error:?}");
    drop(server);

    let server = ours.server("elsewhere");
    let error = put(&ours.options(&server.url, "client")).unwrap_err();
    assert!(error.to_string().contains("not valid for"), "{error:?}");
    put(&ours.options(&server.url.replace("127.0.0.1", "localhost"), "client")).expect("the name is right");
}

#[test]
fn a_user_comes_with_a_certificate_that_has_no_common_name() {
    if !EtcdServer::is_installed() {
        return;
    }
    let ours = Authority::new("ours");
    ours.sign("server", &["127.0.0.1"]);
    ours.sign("client", &[]);
    ours.sign_as("named", &[], DnType::CommonName);
    let server = ours.server("server");
    let agent = ours.agent("client");
    close(|path, body| {
        let answer = agent.post(format!("{}/v3/auth/{path}", server.url)).send(body).expect("an answer");
        assert_eq!(answer.status(), 200, "{path}");
    });
    let mut good = user_of(ours.options(&server.url, "client"), "app", "secret");
    good.put("/a/1", b"v", LONG).expect("a password and a certificate");
    let mut named = user_of(ours.options(&server.url, "named"), "app", "secret");
    let error = named.put("/a/1", b"v", LONG).unwrap_err();
    assert!(matches!(&error, EtcdError::Denied(why) if why.contains("CommonName")), "{error:?}");
}

#[test]
fn bad_files_are_named_at_once() {
    let (ours, other) = (Authority::new("ours"), Authority::new("other"));
    ours.sign("client", &["client"]);
    other.sign("client", &["client"]);
    fs::write(ours.file("empty"), "").unwrap();
    fs::write(ours.file("broken"), "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n").unwrap();
    let good = ours.options("https://127.0.0.1:1", "client");
    let table = [
        (EtcdOptions { ca: Some(ours.file("none")), ..good.clone() }, "--etcd-ca", "none"),
        (EtcdOptions { ca: Some(ours.file("empty")), ..good.clone() }, "--etcd-ca", "empty"),
        (EtcdOptions { ca: Some(ours.file("broken")), ..good.clone() }, "--etcd-ca", "broken"),
        (EtcdOptions { ca: Some(ours.file("client.key")), ..good.clone() }, "--etcd-ca", "no certificate"),
        (EtcdOptions { cert: Some(ours.file("client.key")), ..good.clone() }, "--etcd-cert", "no certificate"),
        (EtcdOptions { cert: Some(ours.file("broken")), ..good.clone() }, "--etcd-", "broken"),
        (EtcdOptions { key: Some(ours.file("ca")), ..good.clone() }, "--etcd-key", "no private key"),
        (EtcdOptions { key: Some(other.file("client.key")), ..good.clone() }, "--etcd-key", "does not fit"),
        (EtcdOptions { user: Some(("u".into(), ours.file("none"))), ..good.clone() }, "--etcd-password-file", "none"),
        (EtcdOptions { user: Some(("u".into(), ours.file("empty"))), ..good.clone() }, "--etcd-password-file", "line"),
    ];
    for (options, option, part) in table {
        let error = Etcd::new(&options).err().unwrap_or_else(|| panic!("{options:?}")).to_string();
        assert!(error.starts_with(option) && error.contains(part), "{error}");
        assert_eq!(error.lines().count(), 1, "{error}");
    }
    Etcd::new(&good).expect("these are good");
}

#[test]
fn who_does_not_speak_tls_was_told_nothing() {
    let ours = Authority::new("ours");
    ours.sign("client", &["client"]);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("https://{}", listener.local_addr().unwrap());
    let mut etcd = Etcd::new(&ours.options(&url, "client")).unwrap();
    let began = Instant::now();
    let error = etcd.put("k", b"v", Duration::from_millis(200)).unwrap_err();
    assert!(matches!(error, EtcdError::Refused(_)) && began.elapsed() < LONG, "{error:?}");
}
