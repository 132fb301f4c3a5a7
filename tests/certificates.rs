//! Certificates as operators have them, against the real binary: of old versions, signed by themselves, in chains, with RSA.
//!
//! Some were made by OpenSSL, to last until 2126: `rsa-v1.pem` is `openssl req -new`, `openssl x509 -req -signkey` and its
//! key, which `rsa-pkcs1.key` has in the other form; `rsa-1024.pem` has a key that is too short, and `p-521.pem` one of a
//! curve that is not built in.

mod common;

use common::{Folder, Server, Sidecar, TlsConn, until};
use rcgen::{
    BasicConstraints, Certificate, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, PKCS_RSA_SHA256, date_time_ymd,
};
use rustls::ClientConfig;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::ring::default_provider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::version::{TLS12, TLS13};
use rustls::{DigitallySignedStruct, Error, SignatureScheme};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use twincache::tls::ClientFiles;

/// The folder of what OpenSSL made.
const DATA: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/");

/// A file with certificates and one with a key.
#[derive(Clone)]
struct Shown {
    name: &'static str,
    certs: String,
    key: String,
}

/// Makes files of certificates.
struct Maker {
    folder: Folder,
    ca: Issuer<'static, KeyPair>,
}

impl Maker {
    /// With a CA: `ca.pem`.
    fn new() -> Maker {
        let (folder, key, params) = (Folder::new(), KeyPair::generate().unwrap(), params("ca", true));
        std::fs::write(folder.file("ca.pem"), params.self_signed(&key).unwrap().pem()).unwrap();
        Maker { folder, ca: Issuer::new(params, key) }
    }

    fn ca(&self) -> String {
        self.folder.file("ca.pem")
    }

    fn put(&self, name: &'static str, certs: &[&Certificate], key: &KeyPair) -> Shown {
        let (cert_file, key_file) =
            (self.folder.file(&format!("{name}.pem")), self.folder.file(&format!("{name}.key")));
        std::fs::write(&cert_file, certs.iter().map(|cert| cert.pem()).collect::<String>()).unwrap();
        std::fs::write(&key_file, key.serialize_pem()).unwrap();
        Shown { name, certs: cert_file, key: key_file }
    }

    /// As `openssl req -x509` makes one, with this changed.
    fn of_itself(&self, name: &'static str, change: impl FnOnce(&mut CertificateParams)) -> Shown {
        let (key, mut params) = (KeyPair::generate().unwrap(), params("itself", true));
        change(&mut params);
        self.put(name, &[&params.self_signed(&key).unwrap()], &key)
    }

    /// Signed by the CA, with the key of `rsa-v1.pem`.
    fn rsa(&self, name: &'static str) -> Shown {
        let pem = std::fs::read_to_string(format!("{DATA}rsa-v1.pem")).unwrap();
        let key = PrivateKeyDer::from_pem_slice(pem.as_bytes()).unwrap();
        let key = KeyPair::from_der_and_sign_algo(&key, &PKCS_RSA_SHA256).unwrap();
        self.put(name, &[&params("rsa", false).signed_by(&key, &self.ca).unwrap()], &key)
    }

    /// Signed by somebody whom the CA has signed: with and without that one's certificate.
    fn by_intermediate(&self) -> [Shown; 2] {
        let (between, key) = (KeyPair::generate().unwrap(), KeyPair::generate().unwrap());
        let intermediate = params("between", true);
        let certificate = intermediate.signed_by(&between, &self.ca).unwrap();
        let leaf = params("leaf", false).signed_by(&key, &Issuer::new(intermediate, between)).unwrap();
        [self.put("chain", &[&leaf, &certificate], &key), self.put("leaf alone", &[&leaf], &key)]
    }
}

fn params(name: &str, is_ca: bool) -> CertificateParams {
    let mut params = CertificateParams::new(["localhost".to_owned(), "127.0.0.1".to_owned()]).unwrap();
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = if is_ca { IsCa::Ca(BasicConstraints::Unconstrained) } else { IsCa::NoCa };
    params
}

/// With another form of the key.
fn with_pkcs1(shown: Shown) -> Shown {
    Shown { name: "rsa pkcs1", key: format!("{DATA}rsa-pkcs1.key"), ..shown }
}

fn version_1() -> Shown {
    let file = format!("{DATA}rsa-v1.pem");
    Shown { name: "version 1", certs: file.clone(), key: file }
}

fn certificates(file: &str) -> Vec<CertificateDer<'static>> {
    CertificateDer::pem_file_iter(file).unwrap().map(Result::unwrap).collect()
}

/// A server that shows this, and asks for certificates of that CA.
fn server(shown: &Shown, ca: Option<&str>) -> Server {
    let Shown { certs, key, .. } = shown;
    let more = ca.map_or_else(String::new, |ca| format!(",ssl_ca_cert={ca},ssl_verify_mode=2"));
    Server::start(&["-t", "1", "-Z", "-o", &format!("ssl_chain_cert={certs},ssl_key={key}{more}")])
}

/// A client that takes whatever is shown.
#[derive(Debug)]
struct Credulous;

impl ServerCertVerifier for Credulous {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        default_provider().signature_verification_algorithms.supported_schemes()
    }
}

/// What becomes of a client that believes this CA, connects to `host` and shows this.
fn served(server: &Server, host: &str, ca: &str, own: Option<&Shown>) -> Result<(), String> {
    let own = own.map(|shown| (shown.certs.clone(), shown.key.clone()));
    let files = ClientFiles { ca: ca.into(), own };
    files.check()?;
    let socket = TcpStream::connect(server.addr).unwrap();
    socket.set_read_timeout(Some(common::DEADLINE)).unwrap();
    let mut answer = [0; 4];
    let mut conn = files.connect(&format!("{host}:{}", server.addr.port()), socket).unwrap();
    conn.write_all(b"mn\r\n").and_then(|()| conn.read_exact(&mut answer)).map_err(|error| error.to_string())?;
    assert_eq!(&answer, b"MN\r\n");
    Ok(())
}

#[test]
fn a_server_shows_certificates_of_all_kinds() {
    let maker = Maker::new();
    let itself = maker.of_itself("itself", |_| {});
    let [chain, _] = maker.by_intermediate();
    let rsa = maker.rsa("rsa pkcs8");
    for shown in [rsa.clone(), with_pkcs1(rsa), version_1(), itself, chain] {
        let server = server(&shown, None);
        for version in [&TLS12, &TLS13] {
            let builder = ClientConfig::builder_with_provider(Arc::new(default_provider()));
            let builder = builder.with_protocol_versions(&[version]).unwrap().dangerous();
            let config = builder.with_custom_certificate_verifier(Arc::new(Credulous)).with_no_client_auth();
            let mut conn = TlsConn::to(server.addr, &Arc::new(config));
            conn.ask("mn\r\n", "MN\r\n");
            assert_eq!(conn.0.conn.peer_certificates().unwrap(), certificates(&shown.certs), "{}", shown.name);
        }
    }
}

#[test]
fn a_server_says_why_it_cannot_show_a_certificate() {
    let (maker, short, curve) = (Maker::new(), format!("{DATA}rsa-1024.pem"), format!("{DATA}p-521.pem"));
    let (itself, other) = (maker.of_itself("itself", |_| {}), maker.of_itself("other", |_| {}));
    let version_1 = version_1();
    let cases = [
        (&short, &short, "an RSA key of 1024 bits cannot be used: make one of RSA with 2048, 3072 or 4096 bits, of "),
        (
            &curve,
            &curve,
            "a key of this kind cannot be used: make one of RSA with 2048, 3072 or 4096 bits, of ECDSA on",
        ),
        (&itself.certs, &other.key, "the key is another certificate's"),
        (&version_1.certs, &other.key, "the key is another certificate's"),
    ];
    for (certs, key, why) in cases {
        let options = format!("ssl_chain_cert={certs},ssl_key={key}");
        let refused = Server::try_start(&["-Z", "-o", &options]).err().expect("an exit");
        assert!(refused.contains(&format!("Error validating the certificate: {why}")), "{refused}");
    }
}

#[test]
fn clients_and_servers_are_believed_by_what_they_show() {
    let maker = Maker::new();
    let (rsa, ca) = (maker.rsa("rsa pkcs8"), maker.ca());
    let itself = maker.of_itself("itself", |_| {});
    let old = maker.of_itself("expired", |params| params.not_after = date_time_ymd(2020, 1, 1));
    let young = maker.of_itself("not yet", |params| params.not_before = date_time_ymd(4000, 1, 1));
    let signs = maker.of_itself("signs only", |params| params.key_usages = vec![KeyUsagePurpose::KeyCertSign]);
    let of_clients = maker.of_itself("of clients", |params| {
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    });
    let of_servers = maker.of_itself("of servers", |params| {
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    });
    let v1 = version_1();
    // The same name and key as that which is trusted, and other bytes.
    let key = KeyPair::from_pem(&std::fs::read_to_string(&itself.key).unwrap()).unwrap();
    let twin = maker.put("twin", &[&params("itself", true).self_signed(&key).unwrap()], &key);
    let [chain, alone] = maker.by_intermediate();
    // Who shows it, whom the other side believes, and whether it believes a client and a server.
    let cases = [
        (&rsa, &ca, true, true),
        (&with_pkcs1(rsa.clone()), &ca, true, true),
        (&chain, &ca, true, true),
        (&alone, &ca, false, false),
        (&itself, &itself.certs, true, true),
        (&itself, &ca, false, false),
        (&twin, &itself.certs, false, false),
        (&old, &old.certs, false, false),
        (&young, &young.certs, false, false),
        (&signs, &signs.certs, false, false),
        (&of_clients, &of_clients.certs, true, false),
        (&of_servers, &of_servers.certs, false, true),
        (&v1, &v1.certs, false, false),
    ];
    for (shown, trusted, is_client, is_server) in cases {
        let name = format!("{} of {trusted}", shown.name);
        let asks = server(&rsa, Some(trusted));
        assert_eq!(served(&asks, "localhost", &ca, Some(shown)).is_ok(), is_client, "client {name}");
        let shows = server(shown, None);
        assert_eq!(served(&shows, "localhost", trusted, None).is_ok(), is_server, "server {name}");
        assert!(served(&shows, "elsewhere", trusted, None).is_err(), "{name}: another's name");
    }
}

#[test]
fn a_sidecar_and_its_peer_know_each_other_by_what_signed_itself() {
    let maker = Maker::new();
    let (own, peers) = (maker.of_itself("own", |_| {}), maker.of_itself("peers", |_| {}));
    let folder = Folder::new();
    let socket = folder.file("control");
    let _primary = Server::start(&["-o", &format!("control_socket={socket}")]);
    let begin = |peer: &Server, ca: &str| {
        let own = ["--peer-cert", &own.certs, "--peer-key", &own.key];
        Sidecar::start(
            &socket,
            peer.addr,
            &[&["--peer-tls", "--peer-ca", ca, "--http", "127.0.0.1:0"], &own[..]].concat(),
        )
    };
    let peer = server(&peers, Some(&own.certs));
    let sidecar = begin(&peer, &peers.certs);
    until("health", || sidecar.page("/health").contains("200 OK"));
    drop(sidecar);
    let old = server(&version_1(), None);
    begin(&old, &version_1().certs).says("X.509 version 1 is not taken: give openssl x509 -req an -extfile");
    let another = maker.of_itself("another", |_| {});
    begin(&server(&another, None), &peers.certs).says("is taken only if it stands itself in the file of CAs");
}
