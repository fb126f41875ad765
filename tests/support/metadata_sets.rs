//! Metadata of a repository as what they say of each package, whatever the order of the packages and
//! however the files are packed: what has to be the same when two programs made them.
//!
//! It reads the text as strictly as it can, so that two files that are wrong in the same way do not count as
//! equal. It deliberately does not know who made them, and takes nothing from the code that is tested.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::fs;
use std::io::{self, Read as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::process::Command;

use flate2::bufread::GzDecoder;
use flate2::read::MultiGzDecoder;
use moji_proto::Sha256;

use super::repository::{attribute, content_of, elements, rpms_below};

/// Which of the three files that list packages.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// What a resolver needs.
    Primary,
    /// All files of all packages.
    Filelists,
    /// The changelogs.
    Other,
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Primary, Self::Filelists, Self::Other];

    /// As `repomd.xml` calls it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Primary => "primary",
            Self::Filelists => "filelists",
            Self::Other => "other",
        }
    }

    /// The element that holds all packages.
    fn root(self) -> &'static str {
        match self {
            Self::Primary => "metadata",
            Self::Filelists => "filelists",
            Self::Other => "otherdata",
        }
    }

    fn package_id(self, element: &str) -> Result<&str, String> {
        match self {
            Self::Primary => content_of(element, "checksum"),
            Self::Filelists | Self::Other => attribute(element, "package", "pkgid"),
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What one file says: for each package, by its digest, the elements of it, sorted. There are several when
/// the same package lies in several places.
pub type Elements = BTreeMap<String, Vec<String>>;

/// What the metadata of a repository say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sets {
    /// The generation.
    pub revision: String,
    /// The packages in each of the three files.
    pub files: BTreeMap<Kind, Elements>,
}

/// Where a package lies, and what tells whether that is still the same file.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// Below the repository.
    pub path: String,
    /// The digest.
    pub id: String,
    /// When the file was changed, in seconds.
    pub modified: String,
}

impl Sets {
    /// Reads the `repodata` of a repository.
    ///
    /// # Errors
    /// What is not there, or not as `repomd.xml` or the file itself says.
    pub fn read(repository: &Path) -> Result<Self, String> {
        let repomd = repository.join("repodata/repomd.xml");
        let repomd = fs::read_to_string(&repomd).map_err(|error| format!("{}: {error}", repomd.display()))?;
        let revision = repomd.split_once("<revision>").and_then(|(_, rest)| rest.split_once("</revision>"));
        let (revision, _) = revision.ok_or("repomd.xml has no revision")?;
        let mut files = BTreeMap::new();
        for data in elements(&repomd, "data") {
            let kind = attribute(data, "data", "type")?;
            // What others have added says nothing of packages.
            let Some(kind) = Kind::ALL.into_iter().find(|known| known.name() == kind) else { continue };
            let text = content(repository, data)?;
            let packages = packages(kind, &text).map_err(|error| format!("{kind}: {error}"))?;
            if files.insert(kind, packages).is_some() {
                return Err(format!("repomd.xml names {kind} twice"));
            }
        }
        match Kind::ALL.into_iter().find(|kind| !files.contains_key(kind)) {
            None => Ok(Self { revision: revision.to_owned(), files }),
            Some(missing) => Err(format!("repomd.xml names no {missing}")),
        }
    }

    /// Where all packages are.
    ///
    /// # Errors
    /// When one does not say so.
    pub fn places(&self) -> Result<BTreeSet<Place>, String> {
        let mut places = BTreeSet::new();
        for (id, element) in self.of(Kind::Primary) {
            let place = Place {
                path: unescaped(attribute(element, "location", "href")?),
                id: id.to_owned(),
                modified: attribute(element, "time", "file")?.to_owned(),
            };
            places.insert(place);
        }
        Ok(places)
    }

    /// The same, wherever the packages are.
    ///
    /// # Errors
    /// When one does not say where it is.
    pub fn without_places(&self) -> Result<Self, String> {
        let mut files = self.files.clone();
        for elements in files.get_mut(&Kind::Primary).into_iter().flat_map(BTreeMap::values_mut) {
            for element in &mut *elements {
                let place = attribute(element, "location", "href")?;
                *element = element.replace(&format!("<location href=\"{place}\"/>"), "<location/>");
            }
            elements.sort();
        }
        Ok(Self { files, ..self.clone() })
    }

    /// How many packages there are.
    pub fn len(&self) -> usize {
        self.of(Kind::Primary).count()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn of(&self, kind: Kind) -> impl Iterator<Item = (&str, &str)> {
        let each = self.files.get(&kind).into_iter().flatten();
        each.flat_map(|(id, elements)| elements.iter().map(|element| (id.as_str(), element.as_str())))
    }

    /// The first thing, in words, in which these packages and those of another program differ.
    pub fn difference(&self, other: &Self) -> Option<String> {
        Kind::ALL.into_iter().find_map(|kind| {
            let [ours, theirs] = [self, other].map(|sets| sets.files.get(&kind));
            let (none, mut ids) = (Vec::new(), BTreeSet::new());
            ids.extend(ours.into_iter().chain(theirs).flat_map(BTreeMap::keys));
            ids.into_iter().find_map(|id| {
                let [ours, theirs] =
                    [ours, theirs].map(|all| all.and_then(|all| all.get(id)).unwrap_or(&none));
                differing(kind, ours, theirs)
            })
        })
    }
}

/// How many members its gzip file of this kind has: one when `createrepo_c` packed it as a whole.
///
/// # Errors
/// When it is not there or no such file.
pub fn members(repository: &Path, kind: Kind) -> Result<usize, String> {
    let repomd = repository.join("repodata/repomd.xml");
    let repomd = fs::read_to_string(&repomd).map_err(|error| format!("{}: {error}", repomd.display()))?;
    let is_it = |data: &&&str| attribute(data, "data", "type") == Ok(kind.name());
    let all = elements(&repomd, "data");
    let data = all.iter().find(is_it).ok_or("repomd.xml does not name it")?;
    let packed = fs::read(repository.join(attribute(data, "location", "href")?));
    let packed = packed.map_err(|error| error.to_string())?;
    let (mut rest, mut count) = (packed.as_slice(), 0);
    while !rest.is_empty() {
        let mut member = GzDecoder::new(rest);
        io::copy(&mut member, &mut io::sink()).map_err(|error| error.to_string())?;
        rest = member.into_inner();
        count += 1;
    }
    Ok(count)
}

/// Where the packages of a repository lie, whatever its metadata say.
///
/// # Errors
/// When one cannot be read.
pub fn places_below(repository: &Path) -> Result<BTreeSet<Place>, String> {
    let mut paths = BTreeSet::new();
    rpms_below(repository, repository, &mut paths);
    let place = |path: String| {
        let cannot = |error| format!("{path}: {error}");
        let (file, bytes) = (repository.join(&path), fs::read(repository.join(&path)).map_err(cannot)?);
        let modified = fs::metadata(file).map_err(cannot)?.mtime().to_string();
        Ok(Place { id: Sha256::of(&bytes).to_string(), path, modified })
    };
    paths.into_iter().map(place).collect()
}

/// Has `createrepo_c` read every package of a repository and make metadata of them, nothing known before, in the
/// folder `to`, which it makes.
///
/// # Errors
/// When that fails.
pub fn make_anew(repository: &Path, to: &Path) -> Result<(), String> {
    let mut paths = BTreeSet::new();
    rpms_below(repository, repository, &mut paths);
    let list = to.join("packages");
    let lines: String = paths.iter().flat_map(|path| [path, "\n"]).collect();
    fs::create_dir_all(to).and_then(|()| fs::write(&list, lines)).map_err(|error| error.to_string())?;
    let mut command = Command::new("createrepo_c");
    command.args([
        "--quiet",
        "--no-database",
        "--general-compress-type=gz",
        "--checksum",
        "sha256",
        "--pkglist",
    ]);
    command.arg(list).arg("--outputdir").arg(to).arg(repository).env("LC_ALL", "C.UTF-8");
    run(command)
}

/// Has `mergerepo_c` read two repositories and write what both hold into the folder `to`.
///
/// # Errors
/// When that fails.
pub fn merge(repositories: [&Path; 2], to: &Path) -> Result<(), String> {
    let mut command = Command::new("mergerepo_c");
    command
        .args(["--no-database", "--omit-baseurl", "--all", "--compress-type", "gz", "--outputdir"])
        .arg(to);
    for repository in repositories {
        command.arg("--repo").arg(repository);
    }
    run(command)
}

fn run(mut command: Command) -> Result<(), String> {
    let output = command.output().map_err(|error| format!("{command:?}: {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    Err(format!("{command:?}: {}: {}", output.status, String::from_utf8_lossy(&output.stderr)))
}

/// How what is said of one package differs.
fn differing(kind: Kind, ours: &[String], theirs: &[String]) -> Option<String> {
    if ours == theirs {
        return None;
    }
    let name = |element: &str| element.chars().take(200).collect::<String>();
    let times = |elements: &[String], one: &str| elements.iter().filter(|element| *element == one).count();
    let beyond = |these: &[String], those: &[String]| {
        these.iter().find(|one| times(these, one) > times(those, one)).cloned()
    };
    match (beyond(ours, theirs), beyond(theirs, ours)) {
        (Some(mine), Some(other)) => {
            let same = mine.chars().zip(other.chars()).take_while(|(a, b)| a == b).count();
            let near =
                |text: &String| text.chars().skip(same.saturating_sub(60)).take(140).collect::<String>();
            Some(format!(
                "{kind} of {}\n  has      …{}…\n  and not  …{}…",
                name(&mine),
                near(&mine),
                near(&other)
            ))
        }
        (Some(mine), None) => Some(format!("{kind} has too often: {}", name(&mine))),
        (None, Some(other)) => Some(format!("{kind} lacks: {}", name(&other))),
        (None, None) => Some(format!("{kind}: the order of equal elements differs")),
    }
}

/// The unpacked content of a file that `repomd.xml` names, if it is all that is said of it.
fn content(repository: &Path, data: &str) -> Result<String, String> {
    let path = attribute(data, "location", "href")?;
    let packed = fs::read(repository.join(path)).map_err(|error| format!("{path}: {error}"))?;
    let mut open = Vec::new();
    MultiGzDecoder::new(packed.as_slice())
        .read_to_end(&mut open)
        .map_err(|error| format!("{path}: cannot be unpacked: {error}"))?;
    let size = |name: &str| -> Option<&str> {
        let (_, rest) = data.split_once(&format!("<{name}>"))?;
        Some(rest.split_once('<')?.0)
    };
    let sha256 = Sha256::of(&packed).to_string();
    let mut claims = vec![
        ("checksum", Some(content_of(data, "checksum")?), sha256.clone()),
        ("size", size("size"), packed.len().to_string()),
        ("open-size", size("open-size"), open.len().to_string()),
    ];
    if data.contains("<open-checksum") {
        claims.push((
            "open-checksum",
            Some(content_of(data, "open-checksum")?),
            Sha256::of(&open).to_string(),
        ));
    }
    for (what, said, is) in claims {
        if said != Some(is.as_str()) {
            return Err(format!("{path}: its {what} is {is}, and repomd.xml says {said:?}"));
        }
    }
    // A reader that comes while the next generation is published must not get that one's file.
    if !path.starts_with(&format!("repodata/{sha256}-")) {
        return Err(format!("{path}: its name does not begin with its digest {sha256}"));
    }
    String::from_utf8(open).map_err(|error| format!("{path}: {error}"))
}

/// The packages of a file that holds nothing else.
fn packages(kind: Kind, text: &str) -> Result<Elements, String> {
    let root = kind.root();
    let shown = |text: &str| text.chars().take(80).collect::<String>();
    let rest = text
        .strip_prefix("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n")
        .and_then(|rest| rest.strip_prefix(&format!("<{root} ")))
        .ok_or_else(|| format!("begins with {:?}", shown(text)))?;
    let (head, mut rest) = rest.split_once('>').ok_or("ends in its head")?;
    let mut count = 0_usize;
    let mut packages = Elements::new();
    loop {
        rest = rest.trim_start();
        if let Some(end) = rest.strip_prefix(&format!("</{root}>")) {
            if !end.trim().is_empty() {
                return Err(format!("goes on after its end: {:?}", shown(end)));
            }
            break;
        }
        if !rest.starts_with("<package ") {
            return Err(format!("has no package here: {:?}", shown(rest)));
        }
        let (element, after) = rest.split_once("</package>").ok_or("ends in a package")?;
        if element.matches("<package ").count() != 1 {
            return Err(format!("has a package that does not end: {:?}", shown(element)));
        }
        let id = kind.package_id(element)?.to_owned();
        packages.entry(id).or_default().push(normalised(element));
        count += 1;
        rest = after;
    }
    packages.values_mut().for_each(|elements| elements.sort());
    match attribute(text, root, "packages") {
        Ok(said) if said == count.to_string() => Ok(packages),
        _ => Err(format!("lists {count} packages and says: {head:?}")),
    }
}

/// Without the white space between tags; that within texts counts.
fn normalised(element: &str) -> String {
    let mut pieces = element.split('>');
    let mut text = pieces.next().unwrap_or_default().to_owned();
    for piece in pieces {
        text.push('>');
        let begin = piece.trim_start();
        text.push_str(if begin.starts_with('<') { begin } else { piece });
    }
    text.truncate(text.trim_end().len());
    text
}

fn unescaped(text: &str) -> String {
    [("&lt;", "<"), ("&gt;", ">"), ("&quot;", "\""), ("&apos;", "'"), ("&amp;", "&")]
        .into_iter()
        .fold(text.to_owned(), |text, (from, to)| text.replace(from, to))
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use flate2::Compression;
    use flate2::write::GzEncoder;
    use tempfile::TempDir;

    use super::*;

    fn member(text: &str) -> Vec<u8> {
        let mut packed = GzEncoder::new(Vec::new(), Compression::fast());
        packed.write_all(text.as_bytes()).unwrap();
        packed.finish().unwrap()
    }

    fn element(kind: Kind, id: &str, between: &str) -> String {
        match kind {
            Kind::Primary => format!(
                "<package type=\"rpm\">{between}<name>n{id}</name>{between}\
                 <checksum type=\"sha256\" pkgid=\"YES\">{id}</checksum>{between}<description>a  b\n c</description>\
                 <time file=\"7\" build=\"6\"/>{between}<location href=\"x/{id}&amp;.rpm\"/>{between}</package>"
            ),
            Kind::Filelists => {
                format!(
                    "<package pkgid=\"{id}\" name=\"n{id}\" arch=\"a\">{between}<file>/{id}</file></package>"
                )
            }
            Kind::Other => {
                format!(
                    "<package pkgid=\"{id}\" name=\"n{id}\" arch=\"a\"><changelog>c</changelog></package>"
                )
            }
        }
    }

    /// A head, a member for each group, an end.
    fn members(kind: Kind, groups: &[&[&str]], between: &str) -> Vec<String> {
        let count = groups.iter().map(|group| group.len()).sum::<usize>();
        let root = kind.root();
        let mut members = vec![format!(
            "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<{root} xmlns=\"x\" packages=\"{count}\">\n"
        )];
        members
            .extend(groups.iter().map(|group| group.iter().map(|id| element(kind, id, between)).collect()));
        members.push(format!("</{root}>\n"));
        members
    }

    /// A repository; `change` may spoil the members of a file, or what `repomd.xml` says of it.
    fn repository(
        groups: &[&[&str]],
        between: &str,
        change: impl Fn(Kind, &mut Vec<String>, &mut String),
    ) -> TempDir {
        let at = tempfile::tempdir().unwrap();
        let repodata = at.path().join("repodata");
        fs::create_dir(&repodata).unwrap();
        let mut repomd = "<repomd>\n<revision>7</revision>\n".to_owned();
        for kind in Kind::ALL {
            let (mut members, mut unused) = (members(kind, groups, between), String::new());
            change(kind, &mut members, &mut unused);
            let (open, packed) =
                (members.concat(), members.iter().flat_map(|text| member(text)).collect::<Vec<_>>());
            let name = format!("repodata/{}-{kind}.xml.gz", Sha256::of(&packed));
            fs::write(at.path().join(&name), &packed).unwrap();
            let mut data = format!(
                "<data type=\"{kind}\">\n<checksum type=\"sha256\">{}</checksum>\n\
                 <open-checksum type=\"sha256\">{}</open-checksum>\n<location href=\"{name}\"/>\n\
                 <size>{}</size>\n<open-size>{}</open-size>\n</data>\n",
                Sha256::of(&packed),
                Sha256::of(open.as_bytes()),
                packed.len(),
                open.len()
            );
            change(kind, &mut Vec::new(), &mut data);
            repomd.push_str(&data);
        }
        fs::write(repodata.join("repomd.xml"), repomd + "</repomd>\n").unwrap();
        at
    }

    fn sets(groups: &[&[&str]], between: &str) -> Sets {
        Sets::read(repository(groups, between, |_, _, _| {}).path()).unwrap()
    }

    #[test]
    fn groups_order_and_space_between_tags_do_not_count() {
        let one = sets(&[&["11", "22", "33"]], "\n  ");
        assert_eq!((one.len(), one.revision.as_str()), (3, "7"));
        let other = sets(&[&["33"], &[], &["22", "11"]], "");
        assert_eq!(one.difference(&other), None);
        let place = |id: &str| Place { path: format!("x/{id}&.rpm"), id: id.into(), modified: "7".into() };
        assert_eq!(one.places().unwrap(), ["11", "22", "33"].map(place).into());
        assert!(sets(&[], "").is_empty());
    }

    #[test]
    fn members_are_counted() {
        let at = repository(&[&["11"], &["22", "33"]], "", |_, _, _| {});
        assert_eq!(super::members(at.path(), Kind::Other), Ok(4), "a head, two groups, an end");
    }

    #[test]
    fn whatever_else_differs_is_named() {
        let one = sets(&[&["11", "22"]], "");
        let lacks = sets(&[&["22"]], "").difference(&one).unwrap();
        assert!(lacks.starts_with("primary lacks: <package type=\"rpm\"><name>n11<"), "{lacks}");
        let more = sets(&[&["11", "22", "22"]], "").difference(&one).unwrap();
        assert!(more.starts_with("primary has too often: <package type=\"rpm\"><name>n22<"), "{more}");
        for (kind, from, to) in [
            (Kind::Primary, "a  b", "a b"),
            (Kind::Primary, "b\n c", "b c"),
            (Kind::Primary, "x/22&amp;", "y/22&amp;"),
            (Kind::Filelists, "/22", "/2"),
            (Kind::Other, ">c<", ">d<"),
        ] {
            let change = |at: Kind, members: &mut Vec<String>, _: &mut String| {
                for member in members.iter_mut().filter(|_| at == kind) {
                    *member = member.replace(from, to);
                }
            };
            let other = Sets::read(repository(&[&["11", "22"]], "", change).path()).unwrap();
            let difference = other.difference(&one).unwrap();
            assert!(difference.starts_with(&format!("{kind} of <package")), "{difference}");
            assert!(difference.contains("and not") && difference.contains(to), "{difference}");
            let moved = (from, one.without_places().unwrap().difference(&other.without_places().unwrap()));
            assert_eq!(moved.1.is_none(), from.starts_with('x'), "{moved:?}");
        }
    }

    #[test]
    fn what_is_wrong_in_itself_is_refused() {
        type Change<'a> = &'a dyn Fn(&mut Vec<String>, &mut String);
        let wrong: [(Change<'_>, &str); 12] = [
            (&|members, _| drop(members.pop()), "has no package here: \"\""),
            (&|members, _| members.push("<package ".into()), "goes on after its end"),
            (&|members, _| members.swap(0, 1), "begins with"),
            (&|members, _| members.insert(1, "text".into()), "has no package here: \"text"),
            (&|members, _| drop(members.remove(1)), "lists 1 packages and says"),
            (&|members, _| members[1] = members[1].replace("</package>", ""), "package that does not end"),
            (&|_, data| *data = data.replace("<size>", "<size>1"), "its size is"),
            (&|_, data| *data = data.replace("<open-size>", "<open-size>1"), "its open-size is"),
            (&|_, data| *data = data.replace("<open-size>", "<no>"), "its open-size is"),
            (
                &|_, data| {
                    *data = data.replace("<open-checksum type=\"sha256\">", "<open-checksum type=\"x\">0")
                },
                "its open-checksum",
            ),
            (
                &|_, data| *data = data.replace("<checksum type=\"sha256\">", "<checksum type=\"sha256\">0"),
                "its checksum is",
            ),
            (&|_, data| *data = data.replace("type=\"other\"", "type=\"group\""), "names no other"),
        ];
        for (change, why) in wrong {
            let broken = repository(&[&["11"], &["22"]], "", |kind, members, data| {
                if kind == Kind::Other && !(members.is_empty() && data.is_empty()) {
                    if data.is_empty() {
                        change(members, &mut String::new());
                    } else {
                        change(&mut vec![String::new(); 3], data);
                    }
                }
            });
            let error = Sets::read(broken.path()).unwrap_err();
            assert!(error.contains(why), "{error:?} instead of {why:?}");
        }
    }
}
