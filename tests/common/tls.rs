//! Certificates that tests make themselves, and a client that speaks TLS.

use super::{DEADLINE, Folder};
use rcgen::{BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair};
use rustls::crypto::cipher::{MessageEncrypter, OutboundPlainMessage};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::version::{TLS12, TLS13};
use rustls::{
    ClientConfig, ClientConnection, ConnectionTrafficSecrets, ContentType, ProtocolVersion, RootCertStore, StreamOwned,
    SupportedProtocolVersion,
};
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;

/// A CA that certifies servers and clients, and a folder with the files.
pub struct Pki {
    folder: Folder,
    issuer: Issuer<'static, KeyPair>,
}

/// One side's files: names without `.pem` and `.key`.
impl Pki {
    /// A CA with a server and a client: `server.pem`, `server.key`, `client.pem`, `client.key`, `ca.pem`.
    pub fn new() -> Pki {
        let (folder, key) = (Folder::new(), KeyPair::generate().unwrap());
        let mut params = CertificateParams::new([]).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, "tests");
        let ca = params.self_signed(&key).unwrap();
        std::fs::write(folder.file("ca.pem"), ca.pem()).unwrap();
        let pki = Pki { folder, issuer: Issuer::new(params, key) };
        pki.certify("server", "server");
        pki.certify("client", "client");
        pki
    }

    /// Makes the files of somebody who is called `name`.
    pub fn certify(&self, file: &str, name: &str) {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(["localhost".to_owned(), "127.0.0.1".to_owned()]).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        std::fs::write(self.file(&format!("{file}.pem")), certificate.pem()).unwrap();
        std::fs::write(self.file(&format!("{file}.key")), key.serialize_pem()).unwrap();
    }

    /// The path of a file.
    pub fn file(&self, name: &str) -> String {
        self.folder.file(name)
    }

    /// The value of `-o` for a server with its own certificate and this besides.
    pub fn options(&self, more: &str) -> String {
        let (cert, key) = (self.file("server.pem"), self.file("server.key"));
        format!("ssl_chain_cert={cert},ssl_key={key},{more}")
    }

    /// What a client needs that trusts the CA and shows nothing.
    pub fn client(&self) -> ClientConfig {
        self.client_of(&[&TLS13, &TLS12], None)
    }

    /// What a client needs that speaks these versions and has this certificate.
    pub fn client_of(&self, versions: &[&'static SupportedProtocolVersion], cert: Option<&str>) -> ClientConfig {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(self.file("ca.pem")).unwrap()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ClientConfig::builder_with_provider(provider).with_protocol_versions(versions).unwrap();
        let builder = builder.with_root_certificates(roots);
        let Some(name) = cert else { return builder.with_no_client_auth() };
        let chain = vec![CertificateDer::from_pem_file(self.file(&format!("{name}.pem"))).unwrap()];
        let key = PrivateKeyDer::from_pem_file(self.file(&format!("{name}.key"))).unwrap();
        builder.with_client_auth_cert(chain, key).unwrap()
    }
}

/// A client's connection.
pub struct TlsConn(pub StreamOwned<ClientConnection, TcpStream>);

impl TlsConn {
    /// Connects and begins to shake hands, which ends with the first bytes that are sent.
    pub fn to(address: SocketAddr, config: &Arc<ClientConfig>) -> TlsConn {
        let socket = TcpStream::connect_timeout(&address, DEADLINE).expect("connect");
        socket.set_nodelay(true).unwrap();
        socket.set_read_timeout(Some(DEADLINE)).unwrap();
        socket.set_write_timeout(Some(DEADLINE)).unwrap();
        let session = ClientConnection::new(config.clone(), ServerName::try_from("localhost").unwrap()).unwrap();
        TlsConn(StreamOwned::new(session, socket))
    }

    /// Sends this and reads as many bytes as this answer has.
    pub fn try_ask(&mut self, request: &[u8], answer: &[u8]) -> io::Result<Vec<u8>> {
        self.0.write_all(request)?;
        self.0.flush()?;
        let mut got = vec![0; answer.len()];
        self.0.read_exact(&mut got)?;
        Ok(got)
    }

    /// As [`TlsConn::try_ask`]; the answer is that.
    pub fn ask(&mut self, request: &str, answer: &str) {
        let got = self.try_ask(request.as_bytes(), answer.as_bytes()).expect("an answer");
        assert_eq!(String::from_utf8_lossy(&got), answer, "{request}");
    }

    /// Sends this and reads until this comes.
    pub fn read_to(&mut self, request: &str, end: &str) -> String {
        self.0.write_all(request.as_bytes()).unwrap();
        let mut got = Vec::new();
        while !got.ends_with(end.as_bytes()) {
            let mut byte = [0];
            self.0.read_exact(&mut byte).expect("more");
            got.push(byte[0]);
        }
        String::from_utf8(got).unwrap()
    }
}

/// A wire between a client's session and a socket that passes a few bytes at a time, each in a packet of its own.
pub struct ThinWire {
    pub socket: TcpStream,
    pub step: usize,
}

impl Read for ThinWire {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let n = buf.len().min(self.step);
        self.socket.read(&mut buf[..n])
    }
}

impl Write for ThinWire {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        let n = buf.len().min(self.step);
        self.socket.write(&buf[..n])
    }

    fn flush(&mut self) -> io::Result<()> {
        self.socket.flush()
    }
}

/// Makes records of a session's client that no client would.
pub struct RecordWriter {
    encrypter: Box<dyn MessageEncrypter>,
    number: u64,
}

impl RecordWriter {
    /// Of a session whose secrets may be taken.
    pub fn of(session: ClientConnection) -> RecordWriter {
        let suite = session.negotiated_cipher_suite().unwrap();
        let (number, secrets) = session.dangerous_extract_secrets().unwrap().tx;
        let (key, iv) = match secrets {
            ConnectionTrafficSecrets::Aes128Gcm { key, iv } | ConnectionTrafficSecrets::Aes256Gcm { key, iv } => {
                (key, iv)
            }
            ConnectionTrafficSecrets::Chacha20Poly1305 { key, iv } => (key, iv),
            _ => panic!("another suite"),
        };
        RecordWriter { encrypter: suite.tls13().unwrap().aead_alg.encrypter(key, iv), number }
    }

    /// The next record.
    pub fn record(&mut self, typ: ContentType, payload: &[u8]) -> Vec<u8> {
        let plain = OutboundPlainMessage { typ, version: ProtocolVersion::TLSv1_2, payload: payload.into() };
        let record = self.encrypter.encrypt(plain, self.number).unwrap().encode();
        self.number += 1;
        record
    }
}
