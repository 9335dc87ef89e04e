//! One connection through the proxy: two directions, each a reader and a writer with what is under way between them.

use std::{io, time::Duration};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        TcpStream,
        tcp::{ReadHalf, WriteHalf},
    },
    sync::{mpsc, watch},
    time::{Instant, sleep, sleep_until, timeout},
};

use super::{Cut, Fault, Link, Shared, frame, lock, reset};

/// Pieces under way in one direction.
const UNDER_WAY: usize = 64;
/// Bytes of a piece, where frames do not matter.
const PIECE: usize = 16 * 1024;
/// How long the broker has to answer a request whose client is gone, until its connection ends too.
const ORPHANED: Duration = Duration::from_secs(10);

#[derive(Clone, Copy, PartialEq, Eq)]
enum Direction {
    ToServer,
    ToClient,
}

/// Why a connection ends.
enum End {
    /// A party closed it, or it failed.
    Parties,
    /// From outside.
    Cut(Cut),
    /// The client's part ends; the broker then gets `rest` after `wait`, and time to work on what it has.
    Orphaned { wait: Duration, rest: Vec<u8> },
}

struct Piece {
    due: Instant,
    bytes: Vec<u8>,
    fault: Option<Fault>,
}

pub(super) async fn serve(mut client: TcpStream, shared: &Shared) {
    let mut cut = shared.cut.subscribe();
    let upstream = *lock(&shared.upstream);
    let Ok(mut server) = TcpStream::connect(upstream).await else {
        return reset(&client);
    };
    // Nagle's delay is none of the faults. Fails only where the next read does too.
    let _ = (client.set_nodelay(true), server.set_nodelay(true));
    let end = {
        let (from_client, to_client) = client.split();
        let (from_server, to_server) = server.split();
        // Until when answers are withheld.
        let withheld = watch::Sender::new(Instant::now());
        let requests = pump(Direction::ToServer, from_client, to_server, shared, &withheld);
        let answers = pump(Direction::ToClient, from_server, to_client, shared, &withheld);
        tokio::pin!(requests, answers);
        tokio::select! {
            end = &mut requests => match end {
                // The client will send no more: what the server still has to say arrives.
                Ok(None) => tokio::select! {
                    _ = &mut answers => End::Parties,
                    _ = cut.changed() => End::Cut(*cut.borrow()),
                },
                Ok(Some(end)) => end,
                Err(_) => End::Parties,
            },
            _ = &mut answers => End::Parties,
            _ = cut.changed() => End::Cut(*cut.borrow()),
        }
    };
    match end {
        End::Parties | End::Cut(Cut::Close) => {}
        End::Cut(Cut::Reset) => {
            reset(&client);
            reset(&server);
        }
        End::Orphaned { wait, rest } => {
            drop(client);
            sleep(wait).await;
            // A broker that is gone cannot be told anything any more.
            let _ = timeout(ORPHANED, orphan(server, &rest)).await;
        }
    }
}

/// Delivers the rest and reads answers that nobody gets, until the broker closes.
async fn orphan(mut server: TcpStream, rest: &[u8]) -> io::Result<()> {
    server.write_all(rest).await?;
    let mut nowhere = vec![0; PIECE];
    while server.read(&mut nowhere).await? > 0 {}
    Ok(())
}

/// One direction, to its end; `Some` if a fault ended it.
async fn pump(
    direction: Direction,
    from: ReadHalf<'_>,
    to: WriteHalf<'_>,
    shared: &Shared,
    withheld: &watch::Sender<Instant>,
) -> io::Result<Option<End>> {
    let (send, receive) = mpsc::channel(UNDER_WAY);
    let link = shared.link.subscribe();
    let reading = read(direction, from, send, shared);
    let writing = write(direction, to, receive, link, withheld);
    tokio::pin!(reading, writing);
    tokio::select! {
        // The writer ends first only by a fault or a failure.
        end = &mut writing => end,
        read = &mut reading => {
            let end = writing.await?;
            read.map(|()| end)
        }
    }
}

async fn read(
    direction: Direction,
    mut from: ReadHalf<'_>,
    send: mpsc::Sender<Piece>,
    shared: &Shared,
) -> io::Result<()> {
    loop {
        let (bytes, fault) = if shared.frames && direction == Direction::ToServer {
            let Some(frame) = frame::read(&mut from).await? else { return Ok(()) };
            let fault = shared.judge(&frame);
            (frame, fault)
        } else {
            let mut bytes = vec![0; PIECE];
            let length = from.read(&mut bytes).await?;
            if length == 0 {
                return Ok(());
            }
            bytes.truncate(length);
            (bytes, None)
        };
        let due = Instant::now() + shared.link.borrow().delay;
        if send.send(Piece { due, bytes, fault }).await.is_err() {
            return Ok(());
        }
    }
}

async fn write(
    direction: Direction,
    mut to: WriteHalf<'_>,
    mut receive: mpsc::Receiver<Piece>,
    mut link: watch::Receiver<Link>,
    withheld: &watch::Sender<Instant>,
) -> io::Result<Option<End>> {
    while let Some(Piece { due, bytes, fault }) = receive.recv().await {
        sleep_until(due).await;
        let now = passable(direction, &mut link).await;
        if direction == Direction::ToClient {
            let until = *withheld.borrow();
            sleep_until(until).await;
        }
        match fault {
            Some(Fault::Late(wait)) => return Ok(Some(End::Orphaned { wait, rest: bytes })),
            Some(Fault::RequestLost) => return Ok(Some(End::Parties)),
            Some(Fault::RequestWithheld(wait)) => sleep(wait).await,
            Some(Fault::HalfDelivered) => {
                to.write_all(&bytes[..bytes.len() / 2]).await?;
                return Ok(Some(End::Parties));
            }
            // Before it is sent: its answer must not be quicker.
            Some(Fault::AnswerWithheld(wait)) => {
                withheld.send_replace(Instant::now() + wait);
            }
            Some(Fault::AnswerLost) => return Ok(Some(End::Orphaned { wait: Duration::ZERO, rest: bytes })),
            None => {}
        }
        to.write_all(&bytes).await?;
        if let Some(rate) = now.bytes_per_second {
            sleep(Duration::from_secs_f64(bytes.len() as f64 / rate.max(1) as f64)).await;
        }
    }
    // The end of a connection passes no quicker than its bytes.
    passable(direction, &mut link).await;
    to.shutdown().await?;
    Ok(None)
}

/// Waits until the direction is open.
async fn passable(direction: Direction, link: &mut watch::Receiver<Link>) -> Link {
    let open = |link: &Link| if direction == Direction::ToServer { link.to_server } else { link.to_client };
    let found = link.wait_for(open).await.map(|link| *link);
    match found {
        Ok(link) => link,
        // The proxy is ending; so does this connection.
        Err(_) => std::future::pending().await,
    }
}
