//! The API of a comparison: made to cost little, since it shares the machine with what is measured. Answers are put together
//! from parts that are made once; HTTP is as much of it as clients need that ask one thing after the other.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
};

use super::load::{Load, page_of};

/// Longest head of a request: 50 revisions and all parameters take 2 KB.
const HEAD_BYTES_MAX: usize = 64 * 1024;

struct Api {
    load: Load,
    texts: Vec<Bytes>,
    sizes: Vec<usize>,
    requests: AtomicU64,
}

/// Serves for ever; prints where. `GET /requests` says how many other requests there were.
pub(crate) async fn serve(load: Load) -> anyhow::Result<()> {
    let api = Api { load, texts: load.texts(), sizes: load.text_bytes(), requests: AtomicU64::new(0) };
    let api = Arc::new(api);
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    println!("http://{}", listener.local_addr()?);
    loop {
        let (connection, _) = listener.accept().await?;
        connection.set_nodelay(true)?;
        let api = Arc::clone(&api);
        // A client that leaves ends its connection, and nothing else.
        tokio::spawn(async move { api.converse(connection).await });
    }
}

impl Api {
    async fn converse(&self, mut connection: TcpStream) -> std::io::Result<()> {
        let (mut head, mut answer) = (Vec::with_capacity(4096), Vec::new());
        loop {
            let end = loop {
                if let Some(end) = head.windows(4).position(|four| four == b"\r\n\r\n") {
                    break end + 4;
                }
                if head.len() > HEAD_BYTES_MAX || connection.read_buf(&mut head).await? == 0 {
                    return Ok(());
                }
            };
            answer.clear();
            let target = String::from_utf8_lossy(&head[..end]).split(' ').nth(1).unwrap_or_default().to_owned();
            if target == "/requests" {
                respond(&mut answer, self.requests.load(Ordering::Relaxed).to_string().as_bytes());
            } else {
                let request = self.requests.fetch_add(1, Ordering::Relaxed);
                let latency = self.load.latency_ms(request);
                if latency > 0.0 {
                    tokio::time::sleep(Duration::from_secs_f64(latency / 1000.0)).await;
                }
                respond(&mut answer, &self.revisions(&ids(&target)));
            }
            connection.write_all(&answer).await?;
            if head[..end].windows(9).any(|nine| nine == b" HTTP/1.0") {
                return Ok(());
            }
            head.drain(..end);
        }
    }

    /// The answer to `prop=revisions` with `formatversion=2`, revisions of a page together.
    fn revisions(&self, ids: &[u64]) -> Vec<u8> {
        let mut pages: BTreeMap<u64, Vec<u64>> = BTreeMap::new();
        ids.iter().for_each(|rev_id| pages.entry(page_of(*rev_id)).or_default().push(*rev_id));
        let content: usize = ids.iter().map(|rev_id| self.texts[self.load.text_of(*rev_id)].len() + 400).sum();
        let mut body = Vec::with_capacity(content + 100);
        body.extend_from_slice(br#"{"batchcomplete":true,"query":{"pages":["#);
        for (nth, (page_id, revisions)) in pages.iter().enumerate() {
            let comma = if nth == 0 { "" } else { "," };
            let page = format!(r#"{comma}{{"pageid":{page_id},"ns":0,"title":"Page {page_id}","revisions":["#);
            body.extend_from_slice(page.as_bytes());
            for (nth, rev_id) in revisions.iter().enumerate() {
                body.extend_from_slice(if nth == 0 { b"" } else { b"," });
                self.revision(*rev_id, &mut body);
            }
            body.extend_from_slice(b"]}");
        }
        body.extend_from_slice(b"]}}");
        body
    }

    fn revision(&self, rev_id: u64, body: &mut Vec<u8>) {
        const SHA1: &str = "056930767253dbbbbdef505f03a5f09599785e6e";
        let text = self.load.text_of(rev_id);
        let (parent, size) = (rev_id - 1, self.sizes[text]);
        let head = format!(
            r#"{{"revid":{rev_id},"parentid":{parent},"timestamp":"2026-03-17T02:11:01Z","size":{size},"sha1":"{SHA1}","roles":["main"],"slots":{{"main":{{"size":{size},"sha1":"{SHA1}","contentmodel":"wikitext","contentformat":"text/x-wiki","content":"#
        );
        body.extend_from_slice(head.as_bytes());
        body.extend_from_slice(&self.texts[text]);
        body.extend_from_slice(b"}}}");
    }
}

fn respond(answer: &mut Vec<u8>, body: &[u8]) {
    let head = format!(
        "HTTP/1.1 200 OK\r\ncontent-type: application/json; charset=utf-8\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    answer.extend_from_slice(head.as_bytes());
    answer.extend_from_slice(body);
}

/// What the parameter `revids` names.
fn ids(target: &str) -> Vec<u64> {
    let list = target.split(['?', '&']).find_map(|parameter| parameter.strip_prefix("revids=")).unwrap_or_default();
    list.replace("%7C", "|").split('|').filter_map(|id| id.parse().ok()).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::{super::load::Distribution, *};

    #[test]
    fn an_answer_has_each_revision_under_its_page() {
        let load = Load {
            seed: 1,
            content_bytes: Distribution { median: 100.0, sigma: 0.5, max: 500.0 },
            latency_ms: Distribution::fixed(0.0),
        };
        let api = Api { load, texts: load.texts(), sizes: load.text_bytes(), requests: AtomicU64::new(0) };
        let asked = ids("/w/api.php?action=query&revids=20000007%7C10000001%7C20000003&maxlag=5");
        let answer: Value = serde_json::from_slice(&api.revisions(&asked)).expect("JSON");
        let pages = answer["query"]["pages"].as_array().expect("pages");
        let found: Vec<Value> =
            pages.iter().map(|page| json!([page["pageid"], page["revisions"].as_array().map(Vec::len)])).collect();
        assert_eq!(found, [json!([1, 1]), json!([2, 2])]);
        let slot = &pages[1]["revisions"][0]["slots"]["main"];
        assert_eq!(slot["content"].as_str().map(str::len), slot["size"].as_u64().map(|size| size as usize));
    }
}
