//! A directive is one row: what it is called, where it may stand, how many arguments it takes, what it means.
//!
//! Everything that knows directives reads the rows: the walk over a tree, `-t`, suggestions, the reference. There are
//! three kinds. Most are implemented. Some are accepted without effect, because leaving them out changes no answer;
//! each says why. The others are refused, because ignoring them would change what clients see or who is let in; each
//! says what to do instead. Nothing is ignored silently.
//!
//! An implemented row is a `Directive<T>` beside the settings of its subject, which ask for its value by the row
//! itself: `scope.get(&PROXY_READ_TIMEOUT)` is a `Duration` because that row reads one. The registry sees all rows
//! without their types, as [`Row`]s.

use std::any::Any;
use std::borrow::Cow;

use wssgate_syntax as syntax;

use crate::read::{Reading, Reads};

/// A kind of block, as a bit of [`Row::contexts`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u16)]
pub enum Context {
    /// Outside of all blocks.
    Main = 1,
    /// `events`.
    Events = 1 << 1,
    /// `http`.
    Http = 1 << 2,
    /// `server`.
    Server = 1 << 3,
    /// `location`.
    Location = 1 << 4,
    /// `if` in a server.
    ServerIf = 1 << 5,
    /// `if` in a location.
    LocationIf = 1 << 6,
    /// `limit_except`.
    LimitExcept = 1 << 7,
    /// `upstream`.
    Upstream = 1 << 8,
    /// `acme_issuer`.
    AcmeIssuer = 1 << 9,
}

impl Context {
    /// All of them, outermost first.
    pub const ALL: [Self; 10] = [
        Self::Main,
        Self::Events,
        Self::Http,
        Self::Server,
        Self::Location,
        Self::ServerIf,
        Self::LocationIf,
        Self::LimitExcept,
        Self::Upstream,
        Self::AcmeIssuer,
    ];

    /// Its name for people.
    pub fn name(self) -> &'static str {
        match self {
            Self::Main => "main",
            Self::Events => "events",
            Self::Http => "http",
            Self::Server => "server",
            Self::Location => "location",
            Self::ServerIf => "if in server",
            Self::LocationIf => "if in location",
            Self::LimitExcept => "limit_except",
            Self::Upstream => "upstream",
            Self::AcmeIssuer => "acme_issuer",
        }
    }
}

/// A set of [`Context`]s.
pub type Contexts = u16;

/// `main`.
pub(crate) const M: Contexts = Context::Main as u16;
/// `events`.
pub(crate) const E: Contexts = Context::Events as u16;
/// `http`.
pub(crate) const H: Contexts = Context::Http as u16;
/// `server`.
pub(crate) const S: Contexts = Context::Server as u16;
/// `location`.
pub(crate) const L: Contexts = Context::Location as u16;
/// `if` in a server.
pub(crate) const SI: Contexts = Context::ServerIf as u16;
/// `if` in a location.
pub(crate) const LI: Contexts = Context::LocationIf as u16;
/// `limit_except`.
pub(crate) const X: Contexts = Context::LimitExcept as u16;
/// `upstream`.
pub(crate) const U: Contexts = Context::Upstream as u16;
/// `acme_issuer`.
pub(crate) const AI: Contexts = Context::AcmeIssuer as u16;
/// `http` and `server`.
pub(crate) const HS: Contexts = H | S;
/// `http`, `server` and `location`.
pub(crate) const HSL: Contexts = H | S | L;
/// The same and `if` in a location.
pub(crate) const HSLI: Contexts = HSL | LI;

/// How many arguments a directive takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arity {
    /// Exactly one: `on` or `off`.
    Flag,
    /// Exactly this many.
    Exactly(usize),
    /// From … to ….
    Between(usize, usize),
    /// This many or more.
    AtLeast(usize),
}

impl Arity {
    /// Whether `count` arguments are right.
    pub fn allows(self, count: usize) -> bool {
        match self {
            Self::Flag => count == 1,
            Self::Exactly(wanted) => count == wanted,
            Self::Between(least, most) => (least..=most).contains(&count),
            Self::AtLeast(least) => count >= least,
        }
    }

    /// For people.
    pub fn words(self) -> String {
        match self {
            Self::Flag => "`on` or `off`".into(),
            Self::Exactly(0) => "no arguments".into(),
            Self::Exactly(1) => "1 argument".into(),
            Self::Exactly(count) => format!("{count} arguments"),
            Self::Between(least, most) => format!("{least} to {most} arguments"),
            Self::AtLeast(1) => "1 argument or more".into(),
            Self::AtLeast(least) => format!("{least} arguments or more"),
        }
    }
}

/// What a row does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// It is implemented.
    Works,
    /// It is accepted and does nothing, for this reason.
    WithoutEffect(&'static str),
    /// It is refused, with this advice.
    Refused(&'static str),
}

/// What stands in the braces of a directive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Braces {
    /// There are none.
    None,
    /// Directives of this context.
    Level(Context),
    /// Directives of `if`: which ones depends on where the `if` stands.
    If,
    /// Entries that the row's reader reads itself.
    Entries,
}

/// An argument as it is written, such as `weight=NUMBER`, and what it does.
pub type Parameter = (&'static str, &'static str);

/// Reads the arguments of a directive (and, of some, the block).
pub(crate) type Read<T> = fn(&mut Reading<'_>, &syntax::Directive) -> Reads<T>;

/// One implemented directive in some contexts, whose arguments are read as a `T`.
///
/// Rows are statics: a row is recognised by where it lies, so that what it read can only be taken back by itself, with
/// its own type.
pub(crate) struct Directive<T> {
    /// Its name.
    pub(crate) name: &'static str,
    /// Where it may stand.
    pub(crate) contexts: Contexts,
    /// How many arguments it takes.
    pub(crate) arity: Arity,
    /// Arguments that mean the same as leaving it out; empty when there are none.
    pub(crate) default: &'static str,
    /// One sentence.
    pub(crate) doc: &'static str,
    /// What its arguments may be, where that takes more than the sentence.
    pub(crate) parameters: &'static [Parameter],
    /// Lines that show how it is used; empty when there are none.
    pub(crate) example: &'static str,
    /// Whether it may be repeated on one level.
    pub(crate) repeats: bool,
    /// Its braces.
    pub(crate) braces: Braces,
    /// Why it has no effect although it is read, so that what it says is checked; empty when it has one.
    pub(crate) without_effect: &'static str,
    /// Its reader.
    pub(crate) read: Read<T>,
}

impl<T: 'static> Directive<T> {
    /// What the fields of a row are unless it says otherwise: it has no default and no braces, and stands once on a level.
    pub(crate) const fn once(read: Read<T>) -> Self {
        Self {
            name: "",
            contexts: 0,
            arity: Arity::Exactly(0),
            default: "",
            doc: "",
            parameters: &[],
            example: "",
            repeats: false,
            braces: Braces::None,
            without_effect: "",
            read,
        }
    }

    /// The same for a row that may be repeated on one level.
    pub(crate) const fn repeated(read: Read<T>) -> Self {
        Self { repeats: true, ..Self::once(read) }
    }

    /// Which row this is.
    pub(crate) fn id(&'static self) -> RowId {
        RowId(std::ptr::from_ref(self).addr())
    }

    /// What this row read; `None` when another row read it.
    pub(crate) fn of<'v>(&'static self, value: &'v Value) -> Option<&'v T> {
        let own = value.row == self.id();
        own.then(|| value.value.downcast_ref().expect("what this row reads is a `T`"))
    }
}

/// Which [`Directive`] a row is: its address, which no other static has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct RowId(usize);

/// What a directive says, and the row that read it. Only [`AnyDirective::read`] makes one and only [`Directive::of`]
/// looks inside, both with the type of the same row.
pub(crate) struct Value {
    row: RowId,
    value: Box<dyn Any>,
}

/// A [`Directive`], whatever it is read as.
pub(crate) trait AnyDirective: Sync {
    /// The row for those who need not know its type.
    fn row(&'static self) -> Row;

    /// Reads a directive of this row.
    fn read(
        &'static self,
        reading: &mut Reading<'_>,
        directive: &syntax::Directive,
    ) -> Reads<Value>;
}

impl dyn AnyDirective {
    /// Which row this is.
    pub(crate) fn id(&'static self) -> RowId {
        RowId(std::ptr::from_ref(self).addr())
    }
}

impl<T: 'static> AnyDirective for Directive<T> {
    fn row(&'static self) -> Row {
        let (kind, doc) = match self.without_effect {
            "" => (Kind::Works, self.doc),
            reason => (Kind::WithoutEffect(reason), reason),
        };
        Row {
            name: self.name.into(),
            contexts: self.contexts,
            arity: self.arity,
            default: self.default,
            doc,
            parameters: self.parameters,
            example: self.example,
            repeats: self.repeats,
            braces: self.braces,
            kind,
            harmless: "",
            directive: Some(self),
        }
    }

    fn read(
        &'static self,
        reading: &mut Reading<'_>,
        directive: &syntax::Directive,
    ) -> Reads<Value> {
        let value = (self.read)(reading, directive)?;
        Ok(Value { row: self.id(), value: Box::new(value) })
    }
}

/// One directive in some contexts, as the registry lists it.
pub struct Row {
    /// Its name.
    pub name: Cow<'static, str>,
    /// Where it may stand.
    pub contexts: Contexts,
    /// How many arguments it takes.
    pub arity: Arity,
    /// Arguments that mean the same as leaving it out; empty when there are none.
    pub default: &'static str,
    /// One sentence.
    pub doc: &'static str,
    /// What its arguments may be, where that takes more than the sentence.
    pub parameters: &'static [Parameter],
    /// Lines that show how it is used; empty when there are none.
    pub example: &'static str,
    /// Whether it may be repeated on one level.
    pub repeats: bool,
    /// Its braces.
    pub braces: Braces,
    /// What it does.
    pub kind: Kind,
    /// Of a directive that is refused or has no effect: the value that asks for what is done anyway, which
    /// is accepted in silence; empty when there is none.
    pub harmless: &'static str,
    /// What reads it, when anything does.
    pub(crate) directive: Option<&'static dyn AnyDirective>,
}

impl Row {
    /// Accepted in silence with this value.
    pub(crate) fn unless(mut self, value: &'static str) -> Self {
        self.harmless = value;
        self
    }

    /// Whether what it says is read: of a row without effect only to check it.
    pub fn is_read(&self) -> bool {
        self.directive.is_some()
    }

    /// Whether it may stand in `context`.
    pub fn allowed_in(&self, context: Context) -> bool {
        self.contexts & context as u16 != 0
    }

    /// The names of its contexts, joined.
    pub fn context_names(&self) -> String {
        let names: Vec<_> = Context::ALL
            .iter()
            .filter(|context| self.allowed_in(**context))
            .map(|context| context.name())
            .collect();
        names.join(", ")
    }
}

/// A directive that is accepted without effect.
pub(crate) fn idle(
    name: impl Into<Cow<'static, str>>,
    contexts: Contexts,
    arity: Arity,
    reason: &'static str,
) -> Row {
    Row {
        name: name.into(),
        contexts,
        arity,
        default: "",
        doc: reason,
        parameters: &[],
        example: "",
        repeats: true,
        braces: Braces::None,
        kind: Kind::WithoutEffect(reason),
        harmless: "off",
        directive: None,
    }
}

/// A directive that is refused.
pub(crate) fn refused(
    name: impl Into<Cow<'static, str>>,
    contexts: Contexts,
    arity: Arity,
    advice: &'static str,
) -> Row {
    Row {
        kind: Kind::Refused(advice),
        harmless: if matches!(arity, Arity::Flag) { "off" } else { "" },
        ..idle(name, contexts, arity, advice)
    }
}

/// Every row, sorted by name; rows of one name have different contexts.
pub struct Registry(Vec<Row>);

impl Registry {
    /// Puts rows in order.
    pub(crate) fn new(mut rows: Vec<Row>) -> Self {
        rows.sort_by(|left, right| (&left.name, left.contexts).cmp(&(&right.name, right.contexts)));
        Self(rows)
    }

    /// All rows.
    pub fn rows(&self) -> &[Row] {
        &self.0
    }

    /// The rows of one name.
    pub fn named(&self, name: &[u8]) -> &[Row] {
        let start = self.0.partition_point(|row| row.name.as_bytes() < name);
        let len = self.0[start..].iter().take_while(|row| row.name.as_bytes() == name).count();
        &self.0[start..start + len]
    }
}
