//! The authorities of a swarm, and what they have revoked.

use std::cell::Cell;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rustls::pki_types::{CertificateDer, TrustAnchor, UnixTime};
use webpki::{EndEntityCert, KeyUsage, VerifiedPath};

use super::chain::check_ways;
use super::der;
use super::error::AuthSetupError;
use super::notice::Notice;
use super::pem::Pem;
use super::proof::Side;
use super::provider::provider;
use super::revocation::{RevocationList, is_revoked};
use super::validity::Validity;
use crate::transport::auth_error::AuthError;

/// The authorities whose signature makes somebody a member
/// ([`Trust::Ca`](super::Trust::Ca)).
///
/// A certificate counts from its first day to its last, if it is for clients (where it
/// connects) and for servers (where it accepts) or says nothing of its use, and as long as
/// no revocation list names it or one between it and the authority. So does that of an
/// authority: what an expired one has signed counts no more. It does not matter to the
/// others, and the log names it. A revocation list that is older than it should be counts
/// all the same, and the log names it too.
///
/// What was revoked stays revoked as long as the program runs: a list goes on counting until
/// one of the same authority that is not older is in its place, also when its file vanishes or
/// breaks. A list that is about a part of what is revoked (an issuing distribution point) is
/// replaced only by one about the same part.
#[derive(Debug, Clone)]
pub struct Ca {
    authorities: Pem,
    revoked: Vec<Pem>,
}

/// The same, as it was last read.
#[derive(PartialEq)]
pub(super) struct LoadedCa {
    authorities: Vec<Authority>,
    /// Of each authority, in the same order.
    anchors: Vec<TrustAnchor<'static>>,
    /// What came from each place, in the order of [`Ca::revoked`].
    revoked: Vec<Lists>,
}

/// What is known of an authority, besides its key.
#[derive(Clone, PartialEq)]
struct Authority {
    name: String,
    /// Nothing if it does not say, as in the oldest form of a certificate.
    validity: Option<Validity>,
}

/// The lists of one place.
#[derive(Clone, Default, PartialEq)]
struct Lists {
    lists: Vec<Arc<RevocationList>>,
    /// Those that are in the place no more, and go on counting.
    kept: Vec<Arc<RevocationList>>,
    /// Where there should be some, if there is nothing.
    missing: Option<String>,
}

impl Ca {
    /// The certificates of the authorities in PEM.
    pub fn from_pem(certificates: &str) -> Self {
        Self::new(Pem::Value(certificates.as_bytes().into()))
    }

    /// The same in a file, of 1 MiB at most.
    /// [`Authenticator::reload`](super::Authenticator::reload) reads it again.
    pub fn from_pem_file(path: impl AsRef<Path>) -> Self {
        Self::new(Pem::File(path.as_ref().to_owned()))
    }

    fn new(authorities: Pem) -> Self {
        let revoked = Vec::new();
        Self {
            authorities,
            revoked,
        }
    }

    /// Refuses what these revocation lists name. They are in PEM, and signed by the
    /// authorities; of each there may be several.
    #[must_use]
    pub fn revoked_pem(mut self, lists: &str) -> Self {
        self.revoked.push(Pem::Value(lists.as_bytes().into()));
        self
    }

    /// The same in a file, of 1 MiB at most.
    /// [`Authenticator::reload`](super::Authenticator::reload) reads it again. There need not
    /// be one before the first certificate is revoked: until there is, nothing is revoked by
    /// it, and the log says so.
    #[must_use]
    pub fn revoked_pem_file(mut self, path: impl AsRef<Path>) -> Self {
        self.revoked.push(Pem::File(path.as_ref().to_owned()));
        self
    }

    /// Reads everything.
    pub(super) fn load(&self) -> Result<LoadedCa, AuthSetupError> {
        let mut loaded = self.load_authorities()?;
        for pem in &self.revoked {
            let lists = loaded.lists(pem, &Lists::default())?;
            loaded.revoked.push(lists);
        }
        Ok(loaded)
    }

    /// Reads everything again. What cannot be used stays as it was, and why is in the list.
    pub(super) fn reload(&self, before: &LoadedCa) -> (LoadedCa, Vec<AuthSetupError>) {
        let mut errors = Vec::new();
        let mut loaded = self.load_authorities().unwrap_or_else(|error| {
            errors.push(error);
            before.without_lists()
        });
        for (pem, before) in self.revoked.iter().zip(&before.revoked) {
            let lists = loaded.lists(pem, before).unwrap_or_else(|error| {
                errors.push(error);
                before.clone()
            });
            loaded.revoked.push(lists);
        }
        (loaded, errors)
    }

    fn load_authorities(&self) -> Result<LoadedCa, AuthSetupError> {
        let mut loaded = LoadedCa {
            authorities: Vec::new(),
            anchors: Vec::new(),
            revoked: Vec::new(),
        };
        for (at, certificate) in self.authorities.certificates()?.iter().enumerate() {
            let anchor = webpki::anchor_from_trusted_cert(certificate).map_err(|error| {
                let what = format!("certificate {}", at + 1);
                let reason = format!("it is none of X.509 ({error})");
                self.authorities.broken(&what, &reason)
            })?;
            loaded.authorities.push(Authority {
                name: der::name(&anchor.subject),
                validity: Validity::of(certificate),
            });
            loaded.anchors.push(anchor.to_owned());
        }
        // With none that counts nobody could be let in.
        let now = SystemTime::now();
        let until = |authority: &Authority| {
            let over = authority.validity.filter(|validity| validity.is_over(now));
            Some((over?.until, authority.name.clone()))
        };
        let over: Option<Vec<_>> = loaded.authorities.iter().map(until).collect();
        if let Some((at, name)) = over.and_then(|over| over.into_iter().max()) {
            let what = self.authorities.at(&format!("the authority {name}"));
            return Err(AuthSetupError::Expired { what, at });
        }
        Ok(loaded)
    }
}

impl LoadedCa {
    /// Reads the lists of one place, where these were before.
    fn lists(&self, pem: &Pem, before: &Lists) -> Result<Lists, AuthSetupError> {
        let read = match pem.revocation_lists() {
            Err(error) if error.is_missing() && before.is_empty() => {
                let missing = Some(pem.at("revocation list"));
                return Ok(Lists {
                    missing,
                    ..Lists::default()
                });
            }
            read => read?,
        };
        let mut lists = Vec::new();
        for (at, list) in read.iter().enumerate() {
            let what = format!("revocation list {}", at + 1);
            let list = RevocationList::read(list);
            let list = list.map_err(|reason| pem.broken(&what, &reason))?;
            if self.is_forged(&list) {
                let name = &list.name;
                let reason = format!(
                    "its signature is not that of the authority {name}, of which it says to be: \
                     it was changed, or it is of another authority of that name; get it anew, or \
                     remove it"
                );
                return Err(pem.broken(&what, &reason));
            }
            lists.push(Arc::new(list));
        }
        // Nobody is let in again because a list is left out, or an older one comes back. One
        // that was beside it before takes its place only if it is newer.
        let is_replaced = |old: &RevocationList| {
            lists.iter().any(|new: &Arc<RevocationList>| {
                let is_another = || new.is_newer(old) || !before.lists.contains(new);
                **new == *old
                    || (new.may_replace(old)
                        && self.signer(new) == self.signer(old)
                        && is_another())
            })
        };
        let old = before.lists.iter().chain(&before.kept);
        let kept = old.filter(|old| !is_replaced(old)).cloned().collect();
        Ok(Lists {
            lists,
            kept,
            missing: None,
        })
    }

    /// The authority that has signed a list, if it is here.
    fn signer(&self, list: &RevocationList) -> Option<usize> {
        self.anchors.iter().position(|anchor| {
            anchor.subject.as_ref() == list.issuer()
                && list.is_signed_by(&webpki::spki_for_anchor(anchor))
        })
    }

    /// Whether a list says that an authority has signed it which has not.
    fn is_forged(&self, list: &RevocationList) -> bool {
        self.is_of_one_here(list) && self.signer(list).is_none()
    }

    fn is_of_one_here(&self, list: &RevocationList) -> bool {
        let mut anchors = self.anchors.iter();
        anchors.any(|anchor| anchor.subject.as_ref() == list.issuer())
    }

    fn without_lists(&self) -> Self {
        Self {
            authorities: self.authorities.clone(),
            anchors: self.anchors.clone(),
            revoked: Vec::new(),
        }
    }

    /// What a person should look at.
    pub(super) fn notices(&self, now: SystemTime) -> Vec<Notice> {
        let mut notices = Vec::new();
        for authority in &self.authorities {
            if let Some(validity) = &authority.validity {
                let what = format!("the authority {}", authority.name);
                notices.extend(Notice::of_validity(what, validity, now));
            }
        }
        for place in &self.revoked {
            notices.extend(place.missing.clone().map(Notice::MissingList));
            for list in place.all() {
                if !self.is_of_one_here(list) {
                    notices.push(Notice::ForeignList(list.name.clone()));
                } else if let Some(next) = list.next
                    && self.is_outdated(list, now)
                {
                    notices.push(Notice::LateList(list.name.clone(), next));
                }
            }
            let kept = place.kept.iter();
            notices.extend(kept.map(|list| Notice::KeptList(list.name.clone())));
        }
        notices
    }

    /// Whether a list is past its date, and there is no newer one.
    fn is_outdated(&self, list: &RevocationList, now: SystemTime) -> bool {
        let mut all = self.revoked.iter().flat_map(Lists::all);
        list.is_late(now)
            && !all.any(|other| other.issuer() == list.issuer() && other.next > list.next)
    }

    /// How many of the authorities have begun to count, and how many have ended. With these
    /// two it is known which ones count: each begins and ends once.
    pub(super) fn begun_and_over(&self, now: SystemTime) -> (usize, usize) {
        let validities = self.authorities.iter().filter_map(|of| of.validity);
        let begun = validities.clone().filter(|of| of.has_begun(now)).count();
        (begun, validities.filter(|of| of.is_over(now)).count())
    }

    /// Checks the certificate of the other side, which has this side of the connection.
    pub(super) fn check(
        &self,
        first: &CertificateDer<'_>,
        between: &[CertificateDer<'_>],
        side: Side,
        now: UnixTime,
    ) -> Result<(), AuthError> {
        let end = EndEntityCert::try_from(first).map_err(refusal)?;
        check_ways(&end, between)?;
        let usage = match side {
            Side::Client => KeyUsage::client_auth(),
            Side::Server => KeyUsage::server_auth(),
        };
        let time = SystemTime::UNIX_EPOCH + Duration::from_secs(now.as_secs());
        let lists = self.revoked.iter().flat_map(Lists::all);
        // The library asks this of each way that it finds.
        let expired = Cell::new(None);
        let is_good = |path: &VerifiedPath<'_>| {
            if let Some(authority) = self.authority(path.anchor())
                && authority
                    .validity
                    .is_some_and(|validity| !validity.is_now(time))
            {
                expired.set(Some(authority));
                return Err(webpki::Error::UnknownIssuer);
            }
            match is_revoked(lists.clone(), path) {
                true => Err(webpki::Error::CertRevoked),
                false => Ok(()),
            }
        };
        let algorithms = provider().signature_verification_algorithms.all;
        let anchors = &self.anchors;
        let verified = end.verify_for_usage(
            algorithms,
            anchors,
            between,
            now,
            usage,
            None,
            Some(&is_good),
        );
        verified.map(drop).map_err(|error| match expired.get() {
            Some(authority) if error == webpki::Error::UnknownIssuer => {
                AuthError::AuthorityExpired {
                    authority: authority.name.clone(),
                }
            }
            _ => refusal(error),
        })
    }

    fn authority(&self, anchor: &TrustAnchor<'_>) -> Option<&Authority> {
        let mut anchors = self.anchors.iter();
        let at = anchors.position(|known| std::ptr::eq(known, anchor))?;
        self.authorities.get(at)
    }
}

impl Lists {
    fn all(&self) -> impl Iterator<Item = &RevocationList> + Clone {
        self.lists.iter().chain(&self.kept).map(|list| &**list)
    }

    fn is_empty(&self) -> bool {
        self.all().next().is_none()
    }
}

fn refusal(error: webpki::Error) -> AuthError {
    #[allow(deprecated)] // The library may still return it.
    match error {
        webpki::Error::CertExpired { .. } => AuthError::Expired,
        webpki::Error::CertNotValidYet { .. } => AuthError::NotYetValid,
        webpki::Error::CertRevoked => AuthError::Revoked,
        webpki::Error::UnknownIssuer => AuthError::UnknownAuthority,
        webpki::Error::RequiredEkuNotFound | webpki::Error::RequiredEkuNotFoundContext(_) => {
            AuthError::WrongUse
        }
        // The authority has this name, and another key.
        webpki::Error::InvalidSignatureForPublicKey => AuthError::UnknownAuthority,
        error => AuthError::handshake(format_args!("its certificate cannot be used: {error}")),
    }
}
