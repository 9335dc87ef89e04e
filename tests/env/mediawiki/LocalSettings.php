<?php
// Several wikis on one installation: the Host header chooses the database, as on Wikimedia's sites; in maintenance
// scripts the variable WEIR_WIKI does.
$weirDir = getenv( 'WEIR_MEDIAWIKI_DIR' );
$weirWikis = [];
foreach ( file( "$weirDir/wikis", FILE_IGNORE_NEW_LINES ) as $weirLine ) {
	[ $weirName, $weirDomain ] = explode( ' ', $weirLine );
	$weirWikis[$weirDomain] = $weirName;
}
if ( PHP_SAPI === 'cli' ) {
	$wgDBname = getenv( 'WEIR_WIKI' );
	$weirHost = array_search( $wgDBname, $weirWikis );
} else {
	$weirHost = $_SERVER['HTTP_HOST'];
	$wgDBname = $weirWikis[$weirHost] ?? null;
	if ( $wgDBname === null ) {
		http_response_code( 404 );
		die( "no wiki at $weirHost" );
	}
}
if ( PHP_SAPI !== 'cli' ) {
	// What each wiki was asked, for tests that count requests.
	file_put_contents( "$weirDir/requests.$wgDBname", ( $_SERVER['QUERY_STRING'] ?? '' ) . "\n", FILE_APPEND | LOCK_EX );
}
$wgSitename = $wgDBname;
$wgMetaNamespace = 'Project';
$wgServer = "http://$weirHost";
$wgScriptPath = '/w';
$wgDBtype = 'sqlite';
$wgDBserver = '';
$wgSQLiteDataDir = "$weirDir/db";
$wgSecretKey = str_repeat( 'weir', 16 );
// Where the language is Arabic, the API normalises more than elsewhere.
$wgLanguageCode = $wgDBname === 'arwiki' ? 'ar' : 'en';
// One wiki lets everybody ask for 500 revisions at once, as bots of others may.
$wgGroupPermissions['*']['apihighlimits'] = $wgDBname === 'metawiki';
$wgCacheDirectory = "$weirDir/cache";
$wgMainCacheType = CACHE_NONE;
$wgParserCacheType = CACHE_NONE;
$wgMessageCacheType = CACHE_NONE;
$wgSessionCacheType = CACHE_DB;
$wgLocalisationCacheConf['store'] = 'array';
$wgJobRunRate = 0;
// Every page is saved in a transaction of its own, and nothing of it must survive the machine.
$wgDBservers = [ [ 'type' => 'sqlite', 'dbname' => $wgDBname, 'dbDirectory' => $wgSQLiteDataDir, 'load' => 1,
	'flags' => 0, 'variables' => [ 'synchronous' => 'OFF' ] ] ];
// So that the checker reads texts in the SQLite file as they are.
$wgCompressRevisions = false;
$wgMaxArticleSize = 4096;
// A second slot, as Commons has `mediainfo`.
$wgHooks['MediaWikiServices'][] = static function ( $services ) {
	$services->addServiceManipulator( 'SlotRoleRegistry', static function ( $registry ) {
		$registry->defineRoleWithModel( 'extra', CONTENT_MODEL_JSON );
	} );
};
// A page that nobody may read: the API fails for all that are asked for with it.
$wgHooks['getUserPermissionsErrors'][] = static function ( $title, $user, $action, &$result ) {
	if ( $action !== 'read' || $title->getPrefixedText() !== 'Secret page' ) {
		return true;
	}
	$result = [ 'badaccess-group0' ];
	return false;
};
// A revision that makes the API fail for all that are asked for with it.
$wgContentHandlers['weir-broken'] = static function () {
	return new class( 'weir-broken' ) extends TextContentHandler {
		public function unserializeContent( $text, $format = null ) {
			throw new RuntimeException( 'broken for a test' );
		}
	};
};
