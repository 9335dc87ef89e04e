//! https: a CA bundle of our own, and HTTP/2 where the endpoint's host is the wiki's.

use std::{env, fs, net::SocketAddr, path::PathBuf, process::Command, sync::Arc};

use axum::{
    Router,
    http::{StatusCode, Uri, Version},
    response::IntoResponse,
    serve::Listener,
};
use rustls::{
    ServerConfig,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::{TlsAcceptor, server::TlsStream};
use weir_common::counters::OutcomeKind;

use crate::{stub::every_revision, support::*};

/// A certificate of `localhost` that only itself vouches for.
pub(crate) struct Made {
    pub(crate) server: ServerConfig,
    /// As a CA bundle; whoever wants it to be there keeps this.
    bundle: Bundle,
}

struct Bundle(PathBuf);

impl Drop for Bundle {
    fn drop(&mut self) {
        // Whatever stays is in a temporary place.
        let _ = fs::remove_dir_all(&self.0);
    }
}

impl Bundle {
    fn path(&self) -> PathBuf {
        self.0.join("cert.pem")
    }
}

pub(crate) fn make() -> Made {
    let bundle = Bundle(env::temp_dir().join(format!("weir-tls-{}", uuid::Uuid::new_v4())));
    fs::create_dir_all(&bundle.0).expect("a folder");
    let made = Command::new("openssl")
        .args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"])
        .args(["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"])
        .args(["-addext", "basicConstraints=critical,CA:FALSE", "-keyout", "key.pem", "-out", "cert.pem"])
        .current_dir(&bundle.0)
        .output()
        .expect("openssl is installed (tests/env/deps.sh build)");
    assert!(made.status.success(), "{made:?}");
    let read = |name: &str| fs::read(bundle.0.join(name)).expect("written");
    let certificate = CertificateDer::from_pem_slice(&read("cert.pem")).expect("a certificate");
    let key = PrivateKeyDer::from_pem_slice(&read("key.pem")).expect("a key");
    let server = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_no_client_auth()
        .with_single_cert(vec![certificate], key)
        .expect("they belong together");
    Made { server, bundle }
}

struct Tls(TcpListener, TlsAcceptor);

impl Listener for Tls {
    type Io = TlsStream<TcpStream>;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Self::Io, SocketAddr) {
        loop {
            let (socket, address) = self.0.accept().await.expect("a client");
            // Who breaks the handshake off comes again.
            if let Ok(stream) = self.1.accept(socket).await {
                return (stream, address);
            }
        }
    }

    fn local_addr(&self) -> std::io::Result<SocketAddr> {
        self.0.local_addr()
    }
}

/// Serves revisions to those who ask in this version of HTTP, which it offers beside HTTP/1.1.
async fn serve(mut config: ServerConfig, version: Version) -> SocketAddr {
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("bound");
    let answer = move |uri: Uri, came: Version| async move {
        if came != version {
            return (StatusCode::HTTP_VERSION_NOT_SUPPORTED, format!("{came:?}")).into_response();
        }
        let url: reqwest::Url = format!("http://stub{}", uri.path_and_query().expect("a path")).parse().expect("a URL");
        let (.., body) = every_revision(&(String::new(), String::new(), url.query_pairs().into_owned().collect()));
        body.into_response()
    };
    let app = Router::new().fallback(answer);
    tokio::spawn(async move { axum::serve(Tls(listener, TlsAcceptor::from(Arc::new(config))), app).await });
    address
}

#[tokio::test]
async fn https_is_trusted_by_the_bundle_alone_and_http_2_is_spoken_where_the_url_names_the_wiki() {
    for (path, version) in [("{domain}/w/api.php", Version::HTTP_2), ("w/api.php", Version::HTTP_11)] {
        let made = make();
        let address = serve(made.server, version).await;
        let mut config = config(format!("https://localhost:{}/{path}", address.port()));
        config.retry.max_attempts = 1;
        let refused = error_event(&enrich(&enricher(&config), edit_of("en.wikipedia.org", 5)).await);
        assert_eq!(refused["error_type"], "TlsFailed", "{refused}");
        config.ssl_ca_bundle_path = Some(made.bundle.path());
        let outcome = enrich(&enricher(&config), edit_of("en.wikipedia.org", 5)).await;
        assert_eq!(outcome.kind, OutcomeKind::Enriched, "{version:?}: {:?}", outcome.output);
    }
}
