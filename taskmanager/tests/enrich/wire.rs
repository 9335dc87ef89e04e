//! A server that says exactly these bytes, for what no HTTP library would send.

use std::{
    io,
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    time::sleep,
};

/// What is done with one request, after its head was read.
#[derive(Clone)]
pub(crate) enum Step {
    /// These bytes.
    Say(Vec<u8>),
    /// Bytes made of the revisions that are asked for.
    Answer(fn(&[i64]) -> Vec<u8>),
    /// These bytes again and again, until the client goes.
    Drip(&'static str, Duration),
    /// Nothing, until the client goes.
    Hang,
    /// An orderly end of the connection.
    Close,
    /// A reset.
    Reset,
}

/// A running server.
pub(crate) struct Wire {
    pub(crate) address: SocketAddr,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    script: Mutex<Vec<Step>>,
    heads: Mutex<Vec<String>>,
}

impl Wire {
    /// Treats every request so.
    pub(crate) async fn start(script: Vec<Step>) -> Self {
        let shared = Arc::new(Shared { script: Mutex::new(script), ..Shared::default() });
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("bound");
        let server = Arc::clone(&shared);
        tokio::spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                let shared = Arc::clone(&server);
                // A client that goes ends it; that is no fault of the test.
                tokio::spawn(async move { serve(socket, &shared).await });
            }
        });
        Self { address, shared }
    }

    /// From now on so.
    pub(crate) fn turn(&self, script: Vec<Step>) {
        *self.shared.script.lock().expect("no panic") = script;
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}/w/api.php", self.address)
    }

    /// Heads of the requests, as they came.
    pub(crate) fn heads(&self) -> Vec<String> {
        self.shared.heads.lock().expect("no panic").clone()
    }
}

async fn serve(mut socket: TcpStream, shared: &Shared) -> io::Result<()> {
    let mut read = Vec::new();
    loop {
        while !read.ends_with(b"\r\n\r\n") {
            read.push(socket.read_u8().await?);
        }
        let head = String::from_utf8_lossy(&read).into_owned();
        read.clear();
        shared.heads.lock().expect("no panic").push(head.clone());
        let script = shared.script.lock().expect("no panic").clone();
        for step in script {
            match step {
                Step::Say(bytes) => socket.write_all(&bytes).await?,
                Step::Answer(make) => socket.write_all(&make(&revids(&head))).await?,
                Step::Drip(bytes, pause) => loop {
                    socket.write_all(bytes.as_bytes()).await?;
                    sleep(pause).await;
                },
                Step::Hang => drop(socket.read(&mut [0; 1]).await?),
                Step::Close => return Ok(()),
                Step::Reset => {
                    sleep(Duration::from_millis(20)).await;
                    return socket.set_zero_linger();
                }
            }
        }
    }
}

fn revids(head: &str) -> Vec<i64> {
    let parameters = head.split(' ').nth(1).and_then(|target| target.split_once('?')).map_or("", |(_, query)| query);
    let ids = parameters.split('&').find_map(|parameter| parameter.strip_prefix("revids=")).unwrap_or("");
    ids.split("%7C").filter_map(|id| id.parse().ok()).collect()
}

/// 200 with a length and further headers, `body` as it is.
pub(crate) fn ok(headers: &str, body: impl AsRef<[u8]>) -> Vec<u8> {
    let body = body.as_ref();
    let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n{headers}\r\n", body.len());
    [head.as_bytes(), body].concat()
}

/// The answer that has all revisions, each with `text of <id>`.
pub(crate) fn good(ids: &[i64]) -> Vec<u8> {
    ok("Content-Type: application/json\r\n", pages(ids))
}

/// Its body.
pub(crate) fn pages(ids: &[i64]) -> String {
    let revision = |id: &i64| {
        format!(
            r#"{{"revid":{id},"slots":{{"main":{{"contentmodel":"wikitext","contentformat":"text/x-wiki","content":"text of {id}"}}}}}}"#
        )
    };
    let revisions: Vec<String> = ids.iter().map(revision).collect();
    format!(
        r#"{{"batchcomplete":true,"query":{{"pages":[{{"pageid":1,"ns":0,"title":"A","revisions":[{}]}}]}}}}"#,
        revisions.join(",")
    )
}

/// A gzip stream of `"` and `bytes` zeros (deflate, one block of fixed codes: matches of 258 bytes at distance 1): it grows
/// 159 times as it is read. Its checksum is wrong; a reader that gets so far has read too much.
pub(crate) fn gzip_bomb(bytes: usize) -> Vec<u8> {
    let mut bits = Bits::default();
    bits.push(0b1, 1);
    bits.push(0b01, 2);
    bits.push_code(0x30 + 0x22, 8);
    bits.push_code(0x30, 8);
    for _ in 0..bytes / 258 {
        // Length code 285 (258 bytes), distance code 0 (1 byte back).
        bits.push_code(0b1100_0000 + 285 - 280, 8);
        bits.push_code(0, 5);
    }
    bits.push_code(0, 7);
    [&[0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255][..], &bits.bytes, &[0; 8]].concat()
}

#[derive(Default)]
struct Bits {
    bytes: Vec<u8>,
    used: u32,
}

impl Bits {
    /// Least significant bit first.
    fn push(&mut self, value: u32, count: u32) {
        for at in 0..count {
            if self.used.is_multiple_of(8) {
                self.bytes.push(0);
            }
            let bit = (value >> at & 1) as u8;
            *self.bytes.last_mut().expect("pushed above") |= bit << (self.used % 8);
            self.used += 1;
        }
    }

    /// Huffman codes are written from their most significant bit on.
    fn push_code(&mut self, code: u32, count: u32) {
        (0..count).rev().for_each(|at| self.push(code >> at & 1, 1));
    }
}
