//! The package document: metadata, manifest and spine.

use std::collections::BTreeMap;

use crate::limits::NAMES_MAX;
use crate::text;
use crate::xml::{Element, Namespace};

/// What a package document says.
#[derive(Debug, Default)]
pub(crate) struct Package {
    /// As written; may be empty.
    pub(crate) version: String,
    pub(crate) title: Option<String>,
    pub(crate) authors: Vec<String>,
    pub(crate) language: Option<String>,
    /// The unique one first.
    pub(crate) identifiers: Vec<String>,
    /// Each id once.
    pub(crate) manifest: Vec<ManifestItem>,
    /// Ids that occur again in the manifest.
    pub(crate) duplicate_ids: Vec<String>,
    /// The ids that the spine refers to, in order.
    pub(crate) spine: Vec<String>,
    /// What the metadata of EPUB 2 name as cover.
    cover_id: Option<String>,
    by_id: BTreeMap<String, usize>,
}

/// An entry of the manifest.
#[derive(Debug)]
pub(crate) struct ManifestItem {
    pub(crate) id: String,
    /// As written, relative to the package.
    pub(crate) href: String,
    pub(crate) media_type: String,
    is_cover: bool,
}

/// An element of Dublin Core, with what other elements say about it.
struct Statement<'e> {
    element: &'e Element,
    text: String,
}

impl Package {
    /// Reads a package from its root element; the error ends a sentence that begins with its name.
    pub(crate) fn read(root: &Element) -> Result<Self, String> {
        if root.name != "package" {
            return Err(format!("is a {:?}, not a package", root.name));
        }
        let mut package = Self {
            version: root.attribute("version").unwrap_or("").trim().into(),
            ..Self::default()
        };
        if let Some(metadata) = root.child("metadata") {
            package.read_metadata(metadata, root.attribute("unique-identifier"));
        }
        let items = root.child("manifest").map_or(&[][..], |manifest| &manifest.children);
        for item in items.iter().filter(|item| item.name == "item") {
            package.read_item(item);
        }
        let refs = root.child("spine").map_or(&[][..], |spine| &spine.children);
        package.spine = refs
            .iter()
            .filter(|itemref| itemref.name == "itemref")
            .map(|itemref| itemref.attribute("idref").unwrap_or("").trim().to_owned())
            .collect();
        Ok(package)
    }

    /// Returns the manifest's item called `id`.
    pub(crate) fn item(&self, id: &str) -> Option<&ManifestItem> {
        self.manifest.get(*self.by_id.get(id)?)
    }

    /// Returns the cover image that the package names.
    pub(crate) fn cover(&self) -> Option<&ManifestItem> {
        let cover = self.manifest.iter().find(|item| item.is_cover);
        cover.or_else(|| {
            let named = self.cover_id.as_deref()?;
            // Some programs write the file where its id belongs.
            self.item(named).or_else(|| self.manifest.iter().find(|item| item.href == named))
        })
    }

    fn read_metadata(&mut self, metadata: &Element, unique_id: Option<&str>) {
        let mut elements = Vec::new();
        // Before EPUB 2 the words of Dublin Core stood in an element of their own.
        metadata.walk(&mut |element| elements.push(element));
        let refinements = Refinements::read(&elements);
        let statements = |name: &str| -> Vec<Statement<'_>> {
            elements
                .iter()
                .filter(|element| element.namespace == Namespace::DublinCore)
                .filter(|element| element.name.eq_ignore_ascii_case(name))
                .filter_map(|&element| {
                    Some(Statement { element, text: text::clean(&element.text)? })
                })
                .collect()
        };

        let titles = statements("title");
        let main = titles.iter().find(|title| refinements.has(title, "title-type", "main"));
        self.title = main.or(titles.first()).map(|title| title.text.clone());
        self.authors = statements("creator")
            .into_iter()
            .filter(|creator| is_author(creator, &refinements))
            .map(|creator| creator.text)
            .take(NAMES_MAX)
            .collect();
        self.language = statements("language").into_iter().next().map(|language| language.text);
        self.identifiers = identifiers(statements("identifier"), unique_id);
        self.cover_id = elements
            .iter()
            .find(|meta| meta.name == "meta" && meta.attribute("name") == Some("cover"))
            .and_then(|meta| meta.attribute("content"))
            .map(|id| id.trim().to_owned());
    }

    fn read_item(&mut self, element: &Element) {
        let (Some(id), Some(href)) = (element.attribute("id"), element.attribute("href")) else {
            return;
        };
        let id = id.trim().to_owned();
        if self.by_id.contains_key(&id) {
            self.duplicate_ids.push(id);
            return;
        }
        let properties = element.attribute("properties").unwrap_or("");
        self.by_id.insert(id.clone(), self.manifest.len());
        self.manifest.push(ManifestItem {
            id,
            href: href.trim().to_owned(),
            media_type: element.attribute("media-type").unwrap_or("").trim().to_owned(),
            is_cover: properties.split_whitespace().any(|property| property == "cover-image"),
        });
    }
}

/// What EPUB 3 says about other elements: by their id, then by property.
struct Refinements<'e>(BTreeMap<&'e str, BTreeMap<&'e str, Vec<&'e str>>>);

impl<'e> Refinements<'e> {
    fn read(elements: &[&'e Element]) -> Self {
        let mut values: BTreeMap<_, BTreeMap<_, Vec<_>>> = BTreeMap::new();
        for meta in elements.iter().filter(|element| element.name == "meta") {
            let refined = meta.attribute("refines").and_then(|id| id.trim().strip_prefix('#'));
            if let (Some(id), Some(property)) = (refined, meta.attribute("property")) {
                let values = values.entry(id).or_default().entry(property.trim()).or_default();
                values.push(meta.text.trim());
            }
        }
        Self(values)
    }

    fn of(&self, statement: &Statement<'_>, property: &str) -> &[&'e str] {
        let id = statement.element.attribute("id").unwrap_or("");
        self.0.get(id).and_then(|of| of.get(property)).map_or(&[], Vec::as_slice)
    }

    fn has(&self, statement: &Statement<'_>, property: &str, value: &str) -> bool {
        self.of(statement, property).contains(&value)
    }
}

/// Whether a creator is an author: said so, or nothing said.
fn is_author(creator: &Statement<'_>, refinements: &Refinements<'_>) -> bool {
    let refined = refinements.of(creator, "role").iter().copied();
    let roles: Vec<&str> = creator.element.attribute("role").into_iter().chain(refined).collect();
    roles.is_empty()
        || roles.iter().any(|role| {
            let role = role.rsplit(['/', ':']).next().unwrap_or(role);
            role.trim().eq_ignore_ascii_case("aut")
        })
}

fn identifiers(statements: Vec<Statement<'_>>, unique_id: Option<&str>) -> Vec<String> {
    let unique = statements
        .iter()
        .find(|identifier| unique_id.is_some() && identifier.element.attribute("id") == unique_id)
        .map(|identifier| identifier.text.clone());
    let mut identifiers: Vec<String> = unique.into_iter().collect();
    for identifier in statements {
        if identifiers.len() < NAMES_MAX && !identifiers.contains(&identifier.text) {
            identifiers.push(identifier.text);
        }
    }
    identifiers
}
