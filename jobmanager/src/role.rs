//! What this jobmanager is at the moment: what its servers answer for.

use tokio::sync::watch;
use weir_common::ids::LeaderEpoch;

use crate::runtime::Handle;

/// Leader or not.
#[derive(Clone, Debug)]
pub enum Role {
    /// It does not lead.
    Standby,
    /// It does.
    Leading {
        /// The running job.
        runtime: Handle,
        /// Everything that is said carries it.
        epoch: LeaderEpoch,
    },
}

/// What the servers hold. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Roles {
    role: watch::Receiver<Role>,
    leader: watch::Receiver<Option<String>>,
    stands_by: bool,
}

impl Roles {
    /// `leader`: where who leads is reached. `stands_by`: whether not to lead is as it should be.
    #[must_use]
    pub fn new(role: watch::Receiver<Role>, leader: watch::Receiver<Option<String>>, stands_by: bool) -> Self {
        Self { role, leader, stands_by }
    }

    /// The running job and its epoch.
    ///
    /// # Errors
    /// This jobmanager does not lead.
    pub fn leading(&self) -> Result<(Handle, LeaderEpoch), NotLeading> {
        match &*self.role.borrow() {
            Role::Leading { runtime, epoch } => Ok((runtime.clone(), *epoch)),
            Role::Standby => Err(NotLeading { leader: self.leader(), stands_by: self.stands_by }),
        }
    }

    /// Where who leads is reached, as far as that is known.
    #[must_use]
    pub fn leader(&self) -> Option<String> {
        self.leader.borrow().clone()
    }
}

/// Ask another jobmanager, or later.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}", self.text())]
pub struct NotLeading {
    /// Which one leads, as far as that is known.
    pub leader: Option<String>,
    /// It is a standby; otherwise it has not begun yet.
    pub stands_by: bool,
}

impl NotLeading {
    fn text(&self) -> String {
        match (&self.leader, self.stands_by) {
            (_, false) => "this jobmanager has not begun yet: it looks at Kafka and storage".to_owned(),
            (Some(leader), true) => format!("this jobmanager stands by: {leader} leads"),
            (None, true) => "this jobmanager stands by, and nobody is known to lead".to_owned(),
        }
    }
}
