//! The certificate that an API server shows. Nothing is sent to it: whoever it is, the handshake ends there.

use std::{
    net::{TcpStream, ToSocketAddrs},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use rustls::{
    ClientConfig, ClientConnection, DigitallySignedStruct, Error, SignatureScheme,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    crypto::CryptoProvider,
    pki_types::{CertificateDer, ServerName, UnixTime},
};

/// How long connecting and each answer may take.
const LIMIT: Duration = Duration::from_secs(5);

/// The certificate of `https://host:port/…`, as it shows it for `name`; nothing if it shows none.
pub(super) fn certificate(url: &str, name: Option<&str>) -> Option<Vec<u8>> {
    let (host, port) = place(url)?;
    let address = (host.as_str(), port).to_socket_addrs().ok()?.next()?;
    let mut stream = TcpStream::connect_timeout(&address, LIMIT).ok()?;
    stream.set_read_timeout(Some(LIMIT)).ok()?;
    stream.set_write_timeout(Some(LIMIT)).ok()?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let looks = Arc::new(Looks { provider: Arc::clone(&provider), seen: Mutex::default() });
    let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().ok()?;
    let verifier: Arc<dyn ServerCertVerifier> = Arc::<Looks>::clone(&looks);
    let config = config.dangerous().with_custom_certificate_verifier(verifier).with_no_client_auth();
    let name = ServerName::try_from(name.unwrap_or(&host).to_owned()).ok()?;
    let mut connection = ClientConnection::new(Arc::new(config), name).ok()?;
    // It always ends with an error: that of `Looks`, or another.
    while connection.complete_io(&mut stream).is_ok_and(|_| connection.is_handshaking()) {}
    looks.seen.lock().unwrap_or_else(PoisonError::into_inner).take()
}

/// Host and port of an address.
fn place(url: &str) -> Option<(String, u16)> {
    let rest = url.strip_prefix("https://")?;
    let authority = rest.split(['/', '?']).next()?;
    let (host, port) = match authority.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => (host, port.parse().ok()?),
        _ => (authority, 443),
    };
    Some((host.trim_matches(['[', ']']).to_owned(), port))
}

/// Looks at a certificate and refuses it.
#[derive(Debug)]
struct Looks {
    provider: Arc<CryptoProvider>,
    seen: Mutex<Option<Vec<u8>>>,
}

fn refused() -> Error {
    Error::General("seen".into())
}

impl ServerCertVerifier for Looks {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        *self.seen.lock().unwrap_or_else(PoisonError::into_inner) = Some(end_entity.to_vec());
        Err(refused())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(refused())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(refused())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_api_servers() {
        let of = |url: &str| place(url).map(|(host, port)| format!("{host} {port}")).unwrap_or_default();
        assert_eq!(of("https://10.1.2.3:6443/"), "10.1.2.3 6443");
        assert_eq!(of("https://api.example/k8s?x"), "api.example 443");
        assert_eq!(of("https://[fd00::1]:6443"), "fd00::1 6443");
        assert_eq!(of("https://[fd00::1]"), "fd00::1 443");
        assert_eq!((of("http://x"), of("https://x:y")), (String::new(), String::new()));
    }
}
