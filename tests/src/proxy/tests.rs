use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::mpsc,
    task::JoinHandle,
    time::timeout,
};

use super::{Fault, Link, Plan, Proxy, frame};

/// Longer than anything here takes.
const LONG: Duration = Duration::from_secs(20);
/// Long enough for loopback, when the point is that nothing comes.
const NOTHING: Duration = Duration::from_millis(150);

async fn soon<T>(what: impl Future<Output = T>) -> T {
    timeout(LONG, what).await.expect("in time")
}

/// What a server saw of one connection.
#[derive(Debug, PartialEq, Eq)]
enum Saw {
    Frame(Vec<u8>),
    /// Closed between frames, or inside of one after this many bytes.
    End(usize),
}

/// A server that answers each frame with its correlation id; a frame that is cut off counts its bytes.
async fn broker() -> (SocketAddr, mpsc::UnboundedReceiver<(Instant, Saw)>, JoinHandle<()>) {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a port");
    let address = listener.local_addr().expect("an address");
    let (send, receive) = mpsc::unbounded_channel();
    let task = tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(answer(stream, send.clone()));
        }
    });
    (address, receive, task)
}

async fn answer(mut stream: TcpStream, send: mpsc::UnboundedSender<(Instant, Saw)>) {
    let mut got = Vec::new();
    loop {
        let mut bytes = [0; 4096];
        let length = stream.read(&mut bytes).await.unwrap_or(0);
        if length == 0 {
            let _ = send.send((Instant::now(), Saw::End(got.len())));
            return;
        }
        got.extend_from_slice(&bytes[..length]);
        while let Some(size) = got.first_chunk::<4>().map(|size| u32::from_be_bytes(*size) as usize + 4)
            && got.len() >= size
        {
            let frame: Vec<u8> = got.drain(..size).collect();
            let id = frame[8..12].to_vec();
            let _ = send.send((Instant::now(), Saw::Frame(frame)));
            let _ = stream.write_all(&[&[0, 0, 0, 4], &id[..]].concat()).await;
        }
    }
}

fn request(api_key: i16, id: i32, body: usize) -> Vec<u8> {
    let mut frame = u32::try_from(8 + body).expect("short").to_be_bytes().to_vec();
    frame.extend(api_key.to_be_bytes());
    frame.extend(1_i16.to_be_bytes());
    frame.extend(id.to_be_bytes());
    frame.extend((0..body).map(|at| u8::try_from(at % 251).expect("a byte")));
    frame
}

/// The answer's correlation id; `None` if the connection ended instead.
async fn answered(client: &mut TcpStream) -> Option<i32> {
    let mut bytes = [0; 8];
    client.read_exact(&mut bytes).await.ok()?;
    Some(i32::from_be_bytes([bytes[4], bytes[5], bytes[6], bytes[7]]))
}

async fn connect(proxy: &Proxy) -> TcpStream {
    TcpStream::connect(proxy.address()).await.expect("the proxy listens")
}

/// The first request of the kind that this plan treats so, with seeds from 0.
fn plan(api_key: i16, delay_ms: u64, wanted: &str) -> Plan {
    (0..1000)
        .map(|seed| Plan { seed, shares: vec![(api_key, 1.0)], delay_ms: delay_ms..delay_ms })
        .find(|plan| plan.fault(api_key, 0).is_some_and(|fault| fault.name() == wanted))
        .expect("each fault is found by some seed")
}

#[tokio::test]
async fn a_healthy_line_changes_nothing() {
    for frames in [false, true] {
        let (address, mut saw, _task) = broker().await;
        let proxy = Proxy::serve(address, frames).await.expect("a port");
        let mut client = connect(&proxy).await;
        let small = request(18, 7, 5);
        // Byte by byte: frames do not come whole.
        for byte in &small {
            client.write_all(&[*byte]).await.expect("sent");
            tokio::task::yield_now().await;
        }
        assert_eq!(soon(answered(&mut client)).await, Some(7));
        assert_eq!(soon(saw.recv()).await.expect("seen").1, Saw::Frame(small));
        // Much, and two in one go.
        let big = [request(0, 8, 3_000_000), request(26, 9, 10)].concat();
        client.write_all(&big).await.expect("sent");
        assert_eq!(soon(answered(&mut client)).await, Some(8));
        assert_eq!(soon(answered(&mut client)).await, Some(9));
        assert_eq!(soon(saw.recv()).await.expect("seen").1, Saw::Frame(request(0, 8, 3_000_000)));
        assert_eq!(soon(saw.recv()).await.expect("seen").1, Saw::Frame(request(26, 9, 10)));
        drop(client);
        assert_eq!(soon(saw.recv()).await.expect("seen").1, Saw::End(0));
        assert_eq!(proxy.seen().get(&26), frames.then_some(&1));
    }
}

#[tokio::test]
async fn answers_arrive_after_the_client_has_said_its_last() {
    let (address, _saw, _task) = broker().await;
    let proxy = Proxy::start(address).await.expect("a port");
    proxy.set(Link { delay: Duration::from_millis(50), ..Link::default() });
    let mut client = connect(&proxy).await;
    client.write_all(&request(3, 1, 0)).await.expect("sent");
    client.shutdown().await.expect("half closed");
    assert_eq!(soon(answered(&mut client)).await, Some(1));
}

#[tokio::test]
async fn cut_closes_and_reset_resets() {
    let (address, mut saw, _task) = broker().await;
    let proxy = Proxy::start(address).await.expect("a port");
    for reset in [false, true] {
        let mut client = connect(&proxy).await;
        client.write_all(&request(3, 1, 0)).await.expect("sent");
        assert_eq!(soon(answered(&mut client)).await, Some(1));
        if reset {
            proxy.reset()
        } else {
            proxy.cut()
        }
        let end = soon(client.read(&mut [0])).await.map_err(|why| why.kind());
        assert_eq!(end, if reset { Err(std::io::ErrorKind::ConnectionReset) } else { Ok(0) });
        assert!(matches!(soon(saw.recv()).await.expect("seen").1, Saw::Frame(_)));
        assert_eq!(soon(saw.recv()).await.expect("seen").1, Saw::End(0), "the server's part ends too");
    }
    // New connections are none of it.
    let mut client = connect(&proxy).await;
    client.write_all(&request(3, 2, 0)).await.expect("sent");
    assert_eq!(soon(answered(&mut client)).await, Some(2));
}

#[tokio::test]
async fn each_direction_stops_alone_and_goes_on() {
    let (address, mut saw, _task) = broker().await;
    let proxy = Proxy::start(address).await.expect("a port");
    let mut client = connect(&proxy).await;

    proxy.set(Link { to_server: false, ..Link::default() });
    client.write_all(&request(3, 1, 0)).await.expect("sent");
    assert!(timeout(NOTHING, saw.recv()).await.is_err(), "the server hears nothing");
    proxy.heal();
    assert_eq!(soon(answered(&mut client)).await, Some(1));
    assert!(matches!(soon(saw.recv()).await.expect("seen").1, Saw::Frame(_)));

    proxy.set(Link { to_client: false, ..Link::default() });
    client.write_all(&request(3, 2, 0)).await.expect("sent");
    assert!(matches!(soon(saw.recv()).await.expect("seen").1, Saw::Frame(_)), "the server hears");
    assert!(timeout(NOTHING, client.peek(&mut [0])).await.is_err(), "the client does not");
    proxy.heal();
    assert_eq!(soon(answered(&mut client)).await, Some(2));

    // Half-open: the client is gone and the server does not know.
    proxy.set(Link { to_server: false, to_client: false, ..Link::default() });
    drop(client);
    assert!(timeout(NOTHING, saw.recv()).await.is_err());
    proxy.heal();
    assert_eq!(soon(saw.recv()).await.expect("seen").1, Saw::End(0));
}

#[tokio::test]
async fn delay_bandwidth_and_absence() {
    let (address, _saw, _task) = broker().await;
    let proxy = Proxy::start(address).await.expect("a port");
    let mut client = connect(&proxy).await;

    proxy.set(Link { delay: Duration::from_millis(100), ..Link::default() });
    let sent = Instant::now();
    client.write_all(&request(3, 1, 0)).await.expect("sent");
    assert_eq!(soon(answered(&mut client)).await, Some(1));
    assert!(sent.elapsed() >= Duration::from_millis(200), "there and back: {:?}", sent.elapsed());

    proxy.set(Link { bytes_per_second: Some(1_000_000), ..Link::default() });
    let sent = Instant::now();
    client.write_all(&request(3, 2, 400_000)).await.expect("sent");
    assert_eq!(soon(answered(&mut client)).await, Some(2));
    // The last piece is not waited for.
    assert!(sent.elapsed() >= Duration::from_millis(350), "{:?}", sent.elapsed());

    proxy.set(Link { refuse: true, ..Link::default() });
    let mut refused = connect(&proxy).await;
    assert!(soon(refused.read(&mut [0])).await.is_err(), "reset");
    proxy.heal();
    client.write_all(&request(3, 3, 0)).await.expect("those that exist stay");
    assert_eq!(soon(answered(&mut client)).await, Some(3));
}

#[tokio::test]
async fn a_lost_answer_was_a_heard_request() {
    let (address, mut saw, _task) = broker().await;
    let proxy = Proxy::kafka(address).await.expect("a port");
    proxy.disturb(Some(plan(frame::END_TXN, 0, "answer_lost")));
    let mut client = connect(&proxy).await;
    client.write_all(&request(3, 1, 0)).await.expect("sent");
    assert_eq!(soon(answered(&mut client)).await, Some(1), "other kinds pass");
    client.write_all(&request(frame::END_TXN, 2, 30)).await.expect("sent");
    assert_eq!(soon(answered(&mut client)).await, None);
    assert_eq!(soon(saw.recv()).await.expect("seen").1, Saw::Frame(request(3, 1, 0)));
    assert_eq!(soon(saw.recv()).await.expect("seen").1, Saw::Frame(request(frame::END_TXN, 2, 30)));
    let injected = proxy.injected();
    assert_eq!(injected.len(), 1);
    assert_eq!((injected[0].head.correlation_id, injected[0].nth, injected[0].fault), (2, 0, Fault::AnswerLost));
    assert_eq!(proxy.counts()[&(frame::END_TXN, "answer_lost")], 1);
}

#[tokio::test]
async fn a_late_request_arrives_when_its_client_has_long_gone_on() {
    let (address, mut saw, _task) = broker().await;
    let proxy = Proxy::kafka(address).await.expect("a port");
    proxy.disturb(Some(plan(frame::END_TXN, 300, "late")));
    let mut client = connect(&proxy).await;
    client.write_all(&request(frame::END_TXN, 1, 30)).await.expect("sent");
    assert_eq!(soon(answered(&mut client)).await, None);
    let cut = Instant::now();
    // A new connection is served before the old request arrives.
    proxy.heal();
    let mut client = connect(&proxy).await;
    client.write_all(&request(frame::END_TXN, 2, 30)).await.expect("sent");
    assert_eq!(soon(answered(&mut client)).await, Some(2));
    assert_eq!(soon(saw.recv()).await.expect("seen").1, Saw::Frame(request(frame::END_TXN, 2, 30)));
    let (at, late) = soon(saw.recv()).await.expect("seen");
    assert_eq!(late, Saw::Frame(request(frame::END_TXN, 1, 30)));
    assert!(at.duration_since(cut) >= Duration::from_millis(200), "{:?}", at.duration_since(cut));
}

#[tokio::test]
async fn half_a_request_is_half_a_request() {
    let (address, mut saw, _task) = broker().await;
    let proxy = Proxy::kafka(address).await.expect("a port");
    proxy.disturb(Some(plan(frame::PRODUCE, 0, "half_delivered")));
    let mut client = connect(&proxy).await;
    let frame = request(frame::PRODUCE, 1, 1000);
    client.write_all(&frame).await.expect("sent");
    assert_eq!(soon(answered(&mut client)).await, None);
    assert_eq!(soon(saw.recv()).await.expect("seen").1, Saw::End(frame.len() / 2));
}

#[tokio::test]
async fn a_lost_request_is_never_heard() {
    let (address, mut saw, _task) = broker().await;
    let proxy = Proxy::kafka(address).await.expect("a port");
    proxy.disturb(Some(plan(frame::PRODUCE, 0, "request_lost")));
    let mut client = connect(&proxy).await;
    client.write_all(&request(frame::PRODUCE, 1, 100)).await.expect("sent");
    assert_eq!(soon(answered(&mut client)).await, None);
    assert_eq!(soon(saw.recv()).await.expect("seen").1, Saw::End(0));
}

#[tokio::test]
async fn a_withheld_request_arrives_although_its_client_has_given_up() {
    let (address, mut saw, _task) = broker().await;
    let proxy = Proxy::kafka(address).await.expect("a port");
    proxy.disturb(Some(plan(frame::END_TXN, 300, "request_withheld")));
    let mut client = connect(&proxy).await;
    let sent = Instant::now();
    client.write_all(&request(frame::END_TXN, 1, 30)).await.expect("sent");
    assert!(timeout(NOTHING, answered(&mut client)).await.is_err(), "the connection stays, without an answer");
    drop(client);
    let (at, heard) = soon(saw.recv()).await.expect("seen");
    assert_eq!(heard, Saw::Frame(request(frame::END_TXN, 1, 30)));
    assert!(at.duration_since(sent) >= Duration::from_millis(300), "{:?}", at.duration_since(sent));
}

#[test]
fn a_frame_says_whose_it_is() {
    let mut frame = request(frame::END_TXN, 1, 0);
    assert_eq!(frame::client_id(&frame), "", "too short to say");
    frame.extend([0, 5]);
    frame.extend(b"weir-and more");
    assert_eq!(frame::client_id(&frame), "weir-");
    frame[12..14].copy_from_slice(&[0xff, 0xff]);
    assert_eq!(frame::client_id(&frame), "", "null");
}

#[tokio::test]
async fn a_withheld_answer_comes_in_the_end() {
    let (address, mut saw, _task) = broker().await;
    let proxy = Proxy::kafka(address).await.expect("a port");
    proxy.disturb(Some(plan(frame::TXN_OFFSET_COMMIT, 300, "answer_withheld")));
    let mut client = connect(&proxy).await;
    let sent = Instant::now();
    client.write_all(&request(frame::TXN_OFFSET_COMMIT, 1, 0)).await.expect("sent");
    let (heard, _) = soon(saw.recv()).await.expect("seen");
    assert_eq!(soon(answered(&mut client)).await, Some(1));
    assert!(sent.elapsed() >= Duration::from_millis(300), "{:?}", sent.elapsed());
    assert!(heard.duration_since(sent) < sent.elapsed(), "the request itself was not held");
}

#[tokio::test]
async fn what_is_no_frame_ends_the_connection() {
    let (address, mut saw, _task) = broker().await;
    let proxy = Proxy::kafka(address).await.expect("a port");
    let mut client = connect(&proxy).await;
    client.write_all(b"\xff\xff\xff\xffGET / HTTP/1.1").await.expect("sent");
    assert_eq!(soon(answered(&mut client)).await, None);
    assert_eq!(soon(saw.recv()).await.expect("seen").1, Saw::End(0));
}

#[test]
fn a_plan_is_its_seed() {
    let fates = |seed| -> Vec<Option<Fault>> {
        let plan = Plan::transactions(seed, 0.3, 100..2000);
        (0..4000).map(|nth| plan.fault(frame::END_TXN, nth)).collect()
    };
    let (one, other) = (fates(1), fates(2));
    assert_eq!(one, fates(1));
    assert_ne!(one, other);
    let share = one.iter().flatten().count() as f64 / 4000.0;
    assert!((0.25..0.35).contains(&share), "{share}");
    for name in ["request_lost", "answer_lost", "late", "request_withheld", "half_delivered", "answer_withheld"] {
        let count = one.iter().flatten().filter(|fault| fault.name() == name).count();
        assert!(count > 130, "{name}: {count} of 4000");
    }
    for fault in one.iter().flatten() {
        if let Fault::Late(delay) | Fault::RequestWithheld(delay) | Fault::AnswerWithheld(delay) = fault {
            assert!((100..2000).contains(&delay.as_millis()), "{delay:?}");
        }
    }
    let plan = Plan::transactions(1, 1.0, 0..1);
    assert!((0..100).all(|nth| plan.fault(3, nth).is_none()), "metadata requests pass");
    assert!((0..100).all(|nth| plan.fault(frame::PRODUCE, nth).is_some()));
}
